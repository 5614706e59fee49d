package billing

import (
	"context"
	"errors"
	"net/http"
	"time"

	"go.uber.org/zap"
)

// Guest is a module in the namespace quota_companion.billing. Its Provision and
// Validate do no I/O beyond reading secrets: a config is valid while the
// provider is down.
type Guest interface {
	// Settings are what the config says beside the provider's own secrets.
	Settings() Settings
	// Open makes the provider. It dials nobody; what the provider needs in the
	// background ends with ctx.
	Open(ctx context.Context, env Env) (Provider, error)
}

// Pager is implemented by a guest with pages of its own, such as the fake's
// checkout. The handler quota_billing serves them below PagesPath.
type Pager interface {
	// Pages answers requests whose path starts with PagesPath, which is kept.
	Pages() http.Handler
}

// PagesPath is where the pages of a Pager are.
const PagesPath = "/v1/billing/fake/"

// Env is what a guest is lent when it is opened.
type Env struct {
	Log *zap.Logger
	// Deliver takes a webhook in this process, as if it had come by HTTP: the body
	// and its Stripe-Signature header. It answers the status that the sender would
	// have got. The fake delivers its events this way.
	Deliver func(ctx context.Context, body []byte, signature string) int
	// Now is the clock; never nil.
	Now func() time.Time
}

// Settings are a guest's options that the package acts on.
type Settings struct {
	// SuccessURL and CancelURL are where the checkout page leads to. The text
	// {CHECKOUT_SESSION_ID} in them is replaced by the provider.
	SuccessURL, CancelURL string
	// ReturnURL is where the portal leads back to.
	ReturnURL string
	// Prices are the provider's price ids of plans by the plan's name, where the
	// config says so. Otherwise the records know them, or the lookup key finds them.
	Prices map[string]string
	// Livemode is the mode of the key: events and prices of the other are refused.
	Livemode bool
}

// Provider sells subscriptions and knows what was bought. All methods are safe
// for concurrent use. Errors are of the kinds below where the caller acts on
// them; no error's text holds a secret.
type Provider interface {
	Notices
	Truth
	Customers
	Sales
	Changes
}

// Notices are what the provider tells by itself.
type Notices interface {
	// ReadEvent verifies a webhook's body by its signature header as of now and
	// reads it. It answers ErrBadSignature for one that was not signed by the
	// provider within five minutes of now, ErrWrongMode, or ErrBadEvent.
	ReadEvent(body []byte, signature string, now time.Time) (Event, error)
	// Events calls each with all events since a moment, in no particular order.
	Events(ctx context.Context, since time.Time, each func(Event) error) error
}

// Truth is what was bought, as the provider has it now.
type Truth interface {
	// Subscriptions are all that the customer ever had, whatever their status.
	Subscriptions(ctx context.Context, customer string) ([]Subscription, error)
	// Invoices are all of the customer's that were finalized.
	Invoices(ctx context.Context, customer string) ([]Invoice, error)
	// AllSubscriptions calls each with every subscription of every customer.
	AllSubscriptions(ctx context.Context, each func(Subscription) error) error
}

// Customers are whom the provider sells to.
type Customers interface {
	// CreateCustomer answers the customer's id; the same Key always the same one.
	CreateCustomer(ctx context.Context, c NewCustomer) (string, error)
	// CustomerDeleted reports whether somebody has deleted the customer at the
	// provider, who sells nothing to it any more. ErrNotFound: there never was one.
	CustomerDeleted(ctx context.Context, customer string) (bool, error)
}

// Sales hand a customer over to the provider's own pages.
type Sales interface {
	// CreateCheckout opens a page on which the customer pays for a subscription.
	CreateCheckout(ctx context.Context, c NewCheckout) (Checkout, error)
	// CloseCheckout closes a page, so that nobody pays on it. ErrRefused: it was
	// paid by now, or its time is over.
	CloseCheckout(ctx context.Context, id string) error
	// CreatePortal opens a page on which the customer manages what it has.
	CreatePortal(ctx context.Context, customer, returnURL string) (string, error)
}

// Changes change a subscription. They answer ErrDeclined where a payment failed,
// and then nothing has changed.
type Changes interface {
	// PreviewPlan says what ChangePlan would cost.
	PreviewPlan(ctx context.Context, c PlanChange) (Preview, error)
	// ChangePlan moves a subscription to another price: at once, the difference
	// being paid at once, or when its period ends.
	ChangePlan(ctx context.Context, c PlanChange) error
	// End cancels a subscription at a moment, or takes back what was to happen at
	// its period's end, a cancellation or a change of plan.
	End(ctx context.Context, c Ending) error
}

// What callers act on.
var (
	// ErrBadSignature: not signed by the provider, too old, or from the future (400).
	ErrBadSignature = errors.New("webhook signature is not valid")
	// ErrWrongMode: a test event at a live key, or the reverse (400).
	ErrWrongMode = errors.New("webhook is of the other mode than the key")
	// ErrBadEvent: signed, and no event (400).
	ErrBadEvent = errors.New("webhook is not an event")
	// ErrDeclined: the payment failed; nothing has changed (402).
	ErrDeclined = errors.New("payment was declined")
	// ErrNotFound: the provider has no such customer, price or subscription.
	ErrNotFound = errors.New("not found at the payment provider")
	// ErrRefused: the provider does not do this, now or later; trying again does not help.
	ErrRefused = errors.New("refused by the payment provider")
	// ErrUnavailable: the provider is down, slow, or asks to come back later (502).
	ErrUnavailable = errors.New("payment provider is not available")
)

// Event says that something changed for a customer, and no more.
type Event struct {
	ID       string
	Type     string // as the provider names it: customer.subscription.updated
	Created  time.Time
	Livemode bool
	// Subscribed: a webhook endpoint that is set up as documented is sent it.
	Subscribed bool
	// Customer is whom it concerns; empty: nobody, nothing is fetched.
	Customer string
}

// Subscription is one of a customer, as the provider has it.
type Subscription struct {
	ID, Customer string
	// Status is the provider's own word: incomplete, incomplete_expired,
	// trialing, active, past_due, canceled, unpaid or paused.
	Status   string
	Livemode bool
	// Item is what is paid for that gives the plan: the plan follows from its price
	// and from nothing else. A provider answers the first of Items; of several the
	// desk chooses.
	Item
	Items     []Item
	StartedAt time.Time
	// Anchor is where the billing periods are counted from.
	Anchor               time.Time
	TrialEnd             time.Time
	CancelAtPeriodEnd    bool
	CancelAt             time.Time // a moment of its own choice
	CancelledAt, EndedAt time.Time
	Schedule             string // holds the change that is pending
	PendingItems         []Item // all that there will be then, by price and quantity
	// The pending price is the one of them that is not paid yet; empty: quantities
	// change, and no price.
	PendingPriceID   string
	PendingLookupKey string
	PendingAt        time.Time
	Currency         string // ISO 4217, lower case
}

// Item is one line of a subscription.
type Item struct {
	ItemID string
	// PriceID and LookupKey name the price.
	PriceID, LookupKey     string
	Interval               string // how often the price is paid: day, week, month or year
	Quantity               int64
	PeriodStart, PeriodEnd time.Time
}

// Invoice is a finalized one.
type Invoice struct {
	ID, Customer, Subscription, Number string
	// Status is the provider's own word: open, paid, uncollectible or void.
	Status                 string
	Currency               string // ISO 4217, lower case
	AmountDue, AmountPaid  int64  // in the currency's minor unit
	AmountRemaining        int64
	Attempts               int64 // how often a payment was tried
	PeriodStart, PeriodEnd time.Time
	CreatedAt, FinalizedAt time.Time
	PaidAt                 time.Time
	HostedURL, PDFURL      string
}

// NewCustomer is an account that is to be known to the provider.
type NewCustomer struct {
	// Account is the account's subject, user:<id> or org:<id>.
	Account, Email string
	// Key makes a repeated call answer the first one's customer.
	Key string
}

// NewCheckout is a purchase that is to begin.
type NewCheckout struct {
	Customer, Account string
	Price             Price
	Quantity          int64
	TrialDays         int64
	SuccessURL        string
	CancelURL         string
	// Key makes a repeated call answer the first one's page.
	Key string
}

// Price names a price by its id or, where that is empty, by its lookup key.
type Price struct{ ID, LookupKey string }

// Checkout is a page on which somebody pays.
type Checkout struct {
	ID, URL   string
	ExpiresAt time.Time
}

// PlanChange moves a subscription to another price.
type PlanChange struct {
	Subscription Subscription // as Truth answered it
	Price        Price
	Quantity     int64 // 0: as it is
	// AtPeriodEnd keeps what is paid for until the period ends.
	AtPeriodEnd bool
	Key         string
}

// Preview is what a change costs.
type Preview struct {
	AmountDue   int64 // at once, in the currency's minor unit; negative: credited
	Currency    string
	EffectiveAt time.Time // zero: at once
	Lines       []PreviewLine
}

// PreviewLine is one line of the invoice that would be written.
type PreviewLine struct {
	Description string
	Amount      int64
	Proration   bool
}

// Ending is when a subscription is to end.
type Ending struct {
	Subscription Subscription // as Truth answered it
	When         When
	Key          string
}

// When is a moment at which a subscription ends.
type When uint8

// The moments.
const (
	Never       When = iota // takes back a cancellation or a change that is pending
	AtPeriodEnd             // the plan stays until then
	AtOnce
)
