package billing

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
)

// Why a request of a user is not carried out.
var (
	errSubscribed  = errors.New("the account has a subscription already")
	errNoCustomer  = errors.New("the account has never bought anything")
	errNothingPaid = errors.New("the account has no paid subscription")
	errSamePlan    = errors.New("the subscription is of that plan already")
	errNotForSale  = errors.New("the plan is not for sale")
	errNoSuchPlan  = errors.New("there is no such plan")
)

// buyer is an account that asks, and who asks for it.
type buyer struct {
	account quota.Subject
	user    string
	email   string
}

// order is what a buyer wants.
type order struct {
	plan     string
	interval string // month or year; empty: month
	quantity int64
}

// offer is an order that can be fulfilled.
type offer struct {
	plan     *store.Plan
	price    Price
	quantity int64
}

// offer finds the price that sells a plan. What the config says of a plan goes
// before the records, for months: it is the price that the operator has just set.
func (d *desk) offer(ctx context.Context, st *store.Store, o order) (*offer, error) {
	plan, err := st.PlanByName(ctx, o.plan)
	if errors.Is(err, store.ErrPlanNotFound) {
		return nil, errNoSuchPlan
	}
	if err != nil {
		return nil, err
	}
	if !plan.IsActive || !plan.IsPublic {
		return nil, errNoSuchPlan // nobody need know of it
	}
	of := &offer{plan: plan, quantity: max(o.quantity, 1)}
	interval := o.interval
	if interval == "" {
		interval = "month"
	}
	i := slices.IndexFunc(plan.Prices, func(p store.Price) bool { return p.IsActive && p.Interval == interval })
	configured, ok := d.settings.Prices[plan.Name]
	switch {
	case ok && interval == "month":
		of.price = Price{ID: configured}
	case i >= 0 && plan.Prices[i].PriceID != "" && plan.Prices[i].Livemode == d.settings.Livemode:
		of.price = Price{ID: plan.Prices[i].PriceID}
	case i >= 0 && plan.Prices[i].LookupKey != "":
		of.price = Price{LookupKey: plan.Prices[i].LookupKey}
	default:
		return nil, errNotForSale
	}
	if of.quantity > 1 && (i < 0 || !plan.Prices[i].PerSeat) {
		return nil, fmt.Errorf("%w in a quantity", errNotForSale)
	}
	return of, nil
}

// idempotencyKey is one for the provider: the same for the same parts.
func idempotencyKey(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return "quotagate-" + hex.EncodeToString(h.Sum(nil)[:20])
}

// customerOf is the account's customer at the provider; errNoCustomer.
func (d *desk) customerOf(ctx context.Context, st *store.Store, account quota.Subject) (string, error) {
	known, err := st.BillingAccount(ctx, account)
	if err == nil && known.Customer == "" {
		err = errNoCustomer
	}
	if err != nil {
		return "", err
	}
	return known.Customer, nil
}

// customer is the account's customer at the provider, made if there is none. Two
// requests at once make one: the provider answers the same key alike, and of two
// that are written the first stays.
func (d *desk) customer(ctx context.Context, st *store.Store, b buyer) (string, error) {
	known, err := st.BillingAccount(ctx, b.account)
	if err != nil || known.Customer != "" {
		return known.Customer, err
	}
	email := b.email
	if email == "" {
		email = known.Email
	}
	id, err := d.provider.CreateCustomer(ctx, NewCustomer{
		Account: string(b.account), Email: email, Key: idempotencyKey("customer", string(b.account), email),
	})
	if err != nil {
		return "", err
	}
	return st.SetCustomer(ctx, b.account, id)
}

// checkout opens a page on which the account pays for what it orders. A page
// that is open for the same order is answered again; one for another order is
// closed first, so that nobody pays twice.
func (d *desk) checkout(ctx context.Context, st *store.Store, b buyer, o order) (*store.CheckoutSession, error) {
	of, err := d.offer(ctx, st, o)
	if err != nil {
		return nil, err
	}
	customer, err := d.customer(ctx, st, b)
	if err != nil {
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		subs, err := d.syncNow(ctx, customer, "checkout")
		if err != nil {
			return nil, err
		}
		if goesOn(subs) != nil {
			return nil, errSubscribed
		}
		session, replaced, err := d.openCheckout(ctx, st, b, customer, of)
		if replaced == "" || !errors.Is(err, ErrRefused) || attempt == 2 {
			return session, err
		}
		// The page that was to be closed was paid or has expired meanwhile.
		if err := st.CloseCheckout(ctx, replaced); err != nil {
			return nil, err
		}
	}
}

// openCheckout opens a page, and says which other one it was to replace.
func (d *desk) openCheckout(ctx context.Context, st *store.Store, b buyer, customer string, of *offer) (*store.CheckoutSession, string, error) {
	known, err := st.BillingAccount(ctx, b.account)
	if err != nil {
		return nil, "", err
	}
	last, err := st.LastCheckout(ctx, b.account)
	if err != nil {
		return nil, "", err
	}
	session := store.CheckoutSession{
		Account: b.account, PlanID: of.plan.ID, Price: of.price.ID + of.price.LookupKey, Quantity: of.quantity,
		TrialDays: of.plan.TrialDays, CreatedBy: b.user,
	}
	if known.HadTrial {
		session.TrialDays = 0
	}
	n := NewCheckout{
		Customer: customer, Account: string(b.account), Price: of.price, Quantity: of.quantity, TrialDays: session.TrialDays,
		SuccessURL: d.settings.SuccessURL, CancelURL: d.settings.CancelURL,
	}
	lastID := ""
	if last != nil {
		lastID = last.ID
	}
	if last != nil && last.Open {
		if last.Price == session.Price && last.Quantity == session.Quantity && last.TrialDays == session.TrialDays {
			return last, "", nil
		}
		n.Replaces = last.ID
	}
	n.Key = idempotencyKey("checkout", string(b.account), customer, session.Price, strconv.FormatInt(n.Quantity, 10),
		strconv.FormatInt(n.TrialDays, 10), n.SuccessURL, n.CancelURL, lastID)
	page, err := d.provider.CreateCheckout(ctx, n)
	if err != nil {
		return nil, n.Replaces, err
	}
	session.ID, session.URL, session.ExpiresAt = page.ID, page.URL, page.ExpiresAt
	return &session, n.Replaces, st.SaveCheckout(ctx, session)
}

// goesOn is the first subscription that is not over; nil: all are.
func goesOn(subs []Subscription) *Subscription {
	for i := range subs {
		if s := &subs[i]; s.Status != "canceled" && !strings.HasPrefix(s.Status, "incomplete") {
			return s
		}
	}
	return nil
}

// portal opens the page on which the account manages what it has.
func (d *desk) portal(ctx context.Context, st *store.Store, account quota.Subject) (string, error) {
	customer, err := d.customerOf(ctx, st, account)
	if err != nil {
		return "", err
	}
	return d.provider.CreatePortal(ctx, customer, d.settings.ReturnURL)
}

// sync reads the account's customer now.
func (d *desk) sync(ctx context.Context, st *store.Store, account quota.Subject) error {
	customer, err := d.customerOf(ctx, st, account)
	if err != nil {
		return err
	}
	_, err = d.syncNow(ctx, customer, "return from checkout")
	return err
}

// paid is the account's subscription that goes on, as the provider has it: the
// one that gives the plan, else any. It is read first, so that nobody acts on
// what has changed meanwhile.
func (d *desk) paid(ctx context.Context, st *store.Store, account quota.Subject) (*Subscription, error) {
	customer, err := d.customerOf(ctx, st, account)
	if err != nil {
		return nil, err
	}
	subs, err := d.syncNow(ctx, customer, "change")
	if err != nil {
		return nil, err
	}
	current, err := st.CurrentSubscription(ctx, account)
	if err != nil {
		return nil, err
	}
	found := goesOn(subs)
	if found == nil {
		return nil, errNothingPaid
	}
	for i := range subs {
		if current != nil && subs[i].ID == current.StripeSubscriptionID && goesOn(subs[i:i+1]) != nil {
			return &subs[i], nil
		}
	}
	return found, nil
}

// planChange says what a change would be: at once if more is bought, at the
// period's end if less.
func (d *desk) planChange(ctx context.Context, st *store.Store, account quota.Subject, o order) (*PlanChange, error) {
	sub, err := d.paid(ctx, st, account)
	if err != nil {
		return nil, err
	}
	planOf, err := st.PlanOfPrice(ctx, d.plansByPrice())
	if err != nil {
		return nil, err
	}
	var tier int64
	name := planOf(sub.PriceID, sub.LookupKey)
	if name != "" {
		now, err := st.PlanByName(ctx, name)
		if err != nil {
			return nil, err
		}
		tier = now.Tier
	}
	if o.interval == "" {
		o.interval = intervalOf(sub)
	}
	of, err := d.offer(ctx, st, o)
	if err != nil {
		return nil, err
	}
	ch := &PlanChange{Subscription: *sub, Price: of.price, Quantity: o.quantity}
	switch {
	case of.plan.Name != name:
		ch.AtPeriodEnd = of.plan.Tier < tier
	case o.interval != intervalOf(sub):
		ch.AtPeriodEnd = o.interval == "month"
	case o.quantity == 0 || o.quantity == sub.Quantity:
		return nil, errSamePlan // what is pending is taken back by resume
	default:
		ch.AtPeriodEnd = o.quantity < sub.Quantity
	}
	return ch, nil
}

// intervalOf is month or year, by the length of the period that is paid.
func intervalOf(s *Subscription) string {
	if s.PeriodEnd.Sub(s.PeriodStart) > 100*24*time.Hour {
		return "year"
	}
	return "month"
}

// change carries a change of plan out, and reads what came of it.
func (d *desk) change(ctx context.Context, st *store.Store, account quota.Subject, o order) error {
	ch, err := d.planChange(ctx, st, account, o)
	if err != nil {
		return err
	}
	if err := d.provider.ChangePlan(ctx, *ch); err != nil {
		return err
	}
	_, err = d.syncNow(ctx, ch.Subscription.Customer, "change")
	return err
}

// end cancels or resumes, and reads what came of it.
func (d *desk) end(ctx context.Context, st *store.Store, account quota.Subject, when When) error {
	sub, err := d.paid(ctx, st, account)
	if err != nil {
		return err
	}
	if err := d.provider.End(ctx, Ending{Subscription: *sub, When: when}); err != nil {
		return err
	}
	_, err = d.syncNow(ctx, sub.Customer, "cancel or resume")
	return err
}

// endAll ends everything that the account pays for, at once: the account is
// being deleted.
func (d *desk) endAll(ctx context.Context, st *store.Store, account quota.Subject) error {
	known, err := st.BillingAccount(ctx, account)
	if err != nil || known.Customer == "" {
		return err
	}
	subs, err := d.provider.Subscriptions(ctx, known.Customer)
	if err != nil {
		return err
	}
	var errs []error
	for i := range subs {
		if goesOn(subs[i:i+1]) != nil {
			errs = append(errs, d.provider.End(ctx, Ending{Subscription: subs[i], When: AtOnce}))
		}
	}
	_, err = d.syncNow(ctx, known.Customer, "deletion")
	return errors.Join(append(errs, err)...)
}
