package stripefake

import "encoding/json"

// Times are seconds since 1970 on the fake's clock, 0 where there is none.
// Amounts are in the currency's minor unit.

type customer struct {
	ID, Email, Name, Description, Phone string
	Metadata                            map[string]string
	Created                             int64
	Balance                             int64  // negative: credit
	Currency                            string // of the first invoice
	DefaultMethod                       string
	Deleted                             bool
	InvoicePrefix                       string
	InvoiceSequence                     int64
	// Failing is the decline code of all payments of the customer, whatever the
	// card; empty: the card decides.
	Failing string
}

type product struct {
	ID, Name, Description string
	Active                bool
	Metadata              map[string]string
	Created, Updated      int64
}

type price struct {
	ID, Product, Currency, LookupKey, Nickname string
	Amount                                     int64
	Interval                                   string // empty: one time
	IntervalCount                              int64
	Active                                     bool
	Metadata                                   map[string]string
	Created                                    int64
}

type method struct {
	ID, Customer, Brand, Last4 string
	Card                       string // name in cards, which says how it behaves
	Metadata                   map[string]string
	ExpMonth, ExpYear, Created int64
}

type session struct {
	ID, Customer, CustomerEmail, Reference, Status string
	SuccessURL, CancelURL, Locale                  string
	Subscription, Invoice                          string
	PaymentStatus                                  string
	Created, ExpiresAt                             int64
	Lines                                          []orderItem
	Metadata                                       map[string]string
	Promotions                                     bool
	CollectAlways                                  bool // a card is asked for even if nothing is due
	// Data is what the subscription is made with.
	Data order
}

type portal struct {
	ID, Customer, ReturnURL, Token, Locale, Configuration string
	Flow                                                  string // a flow's type, or empty
	FlowSubscription                                      string
	Created                                               int64
	Opened                                                int64 // on the delivery clock
}

// orderItem is a price and how many of it.
type orderItem struct {
	ID, Price string
	Quantity  int64
}

// order is what a subscription is made of.
type order struct {
	Customer, Method, Behavior, MissingMethod, Description string
	Items                                                  []orderItem
	Metadata                                               map[string]string
	TrialEnd, TrialDays, CancelAt                          int64
	CancelAtPeriodEnd                                      bool
}

type subscription struct {
	ID, Customer, Status, Currency, Description string
	Items                                       []subItem
	Metadata                                    map[string]string
	Created, Start, Anchor                      int64
	PeriodStart, PeriodEnd                      int64
	TrialStart, TrialEnd                        int64
	MissingMethod                               string // create_invoice, cancel, pause
	TrialEndTold                                bool
	CancelAtPeriodEnd                           bool
	CancelAt, CanceledAt, EndedAt               int64
	Reason, Comment, Feedback                   string // of the cancellation
	DefaultMethod, LatestInvoice, Schedule      string
	Pending                                     []line // for the next invoice
	Update                                      *pendingUpdate
}

// pendingUpdate is a change that waits for its invoice to be paid.
type pendingUpdate struct {
	Items     []orderItem
	Invoice   string
	ExpiresAt int64
}

type subItem struct {
	ID, Price string
	Quantity  int64
	Created   int64
	Metadata  map[string]string
}

type schedule struct {
	ID, Customer, Subscription, Status, EndBehavior string
	Phases                                          []phase
	Metadata                                        map[string]string
	Current                                         int // of Phases
	Created, CanceledAt, CompletedAt, ReleasedAt    int64
	Released                                        string // subscription
}

type phase struct {
	Start, End int64
	Items      []orderItem
	Proration  string
	Metadata   map[string]string
}

type invoice struct {
	ID, Customer, Subscription, Status, Reason string
	Number, Currency, Intent                   string
	Created, PeriodStart, PeriodEnd            int64
	Lines                                      []line
	Paid                                       int64
	StartingBalance, EndingBalance             int64
	Attempts                                   int
	NextAttempt, FinalizeAt                    int64
	FinalizedAt, PaidAt, VoidedAt, WrittenOff  int64
	Metadata                                   map[string]string // of the subscription, as it was
}

type line struct {
	ID, Description, Price, Item string
	Amount, Quantity             int64
	Start, End                   int64
	Proration                    bool
}

type intent struct {
	ID, Customer, Currency, Status, Method, Charge, Invoice string
	Secret                                                  string
	Amount, Created, CanceledAt                             int64
	Error                                                   *decline
}

// decline is why a payment failed.
type decline struct{ Code, DeclineCode, Message, Charge, Method string }

type charge struct {
	ID, Customer, Currency, Intent, Method, Invoice, Dispute string
	Amount, Refunded, Created                                int64
	Failure                                                  *decline
}

type refund struct {
	ID, Charge, Intent, Currency, Reason string
	Amount, Created                      int64
	Metadata                             map[string]string
}

type dispute struct {
	ID, Charge, Intent, Currency, Reason, Status string
	Amount, Created, DueBy                       int64
	Metadata                                     map[string]string
}

type event struct {
	ID, Type string
	Created  int64
	Cause    *cause
	Pending  int
	Data     json.RawMessage // {"object": ..., "previous_attributes": ...}
}

// cause is the request that an event comes from.
type cause struct{ ID, Key string }

// replay is the stored answer to an idempotency key.
type replay struct {
	Key, Fingerprint, RequestID string
	Status                      int
	Body                        json.RawMessage
	Created                     int64
}

// delivery is an event on its way to a receiver.
type delivery struct {
	ID, Event, Receiver string
	Attempts            int
	Next                int64 // on the delivery clock
}

func (r *customer) key() string     { return r.ID }
func (r *product) key() string      { return r.ID }
func (p *price) key() string        { return p.ID }
func (r *method) key() string       { return r.ID }
func (s *session) key() string      { return s.ID }
func (r *portal) key() string       { return r.ID }
func (s *subscription) key() string { return s.ID }
func (r *schedule) key() string     { return r.ID }
func (i *invoice) key() string      { return i.ID }
func (r *intent) key() string       { return r.ID }
func (r *charge) key() string       { return r.ID }
func (r *refund) key() string       { return r.ID }
func (r *dispute) key() string      { return r.ID }
func (r *event) key() string        { return r.ID }
func (r *replay) key() string       { return r.Key }
func (r *delivery) key() string     { return r.ID }
