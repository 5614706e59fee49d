package billing

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
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
	errNoSession   = errors.New("the account has no such checkout session")
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
	perSeat  bool // it may be sold in a quantity
}

// offer finds the price that sells a plan. What the config says of a plan goes
// before the records, for months: it is the price that the operator has just set.
func (d *desk) offer(ctx context.Context, st *store.Companion, o order) (*offer, error) {
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
	of.perSeat = i >= 0 && plan.Prices[i].PerSeat
	if of.quantity > 1 && !of.perSeat {
		return nil, fmt.Errorf("%w in a quantity", errNotForSale)
	}
	return of, nil
}

// keyLife is how long a key is good for. The provider keeps what it has answered
// with a key for a day, also a fault of its own, which is not to be answered all
// that time. What a second click makes with another key harms nobody: of two
// customers, and of two pages, one stays, and on a page that nobody was shown
// nobody pays.
const keyLife = time.Minute

// idempotencyKey is one for the provider: for a while the same for the same parts.
func (d *desk) idempotencyKey(parts ...string) string {
	h := sha256.New()
	fmt.Fprintf(h, "%d:", d.now().Truncate(keyLife).Unix())
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return "quotagate-" + hex.EncodeToString(h.Sum(nil)[:20])
}

// customerOf is the account's customer at the provider; errNoCustomer.
func (d *desk) customerOf(ctx context.Context, st *store.Companion, account quota.Subject) (string, error) {
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
func (d *desk) customer(ctx context.Context, st *store.Companion, b buyer) (string, error) {
	known, err := st.BillingAccount(ctx, b.account)
	if err != nil || known.Customer != "" {
		return known.Customer, err
	}
	id, err := d.newCustomer(ctx, b, known, "")
	if err != nil {
		return "", err
	}
	return st.SetCustomer(ctx, b.account, id)
}

// newCustomer makes the account a customer, after another one that was deleted.
func (d *desk) newCustomer(ctx context.Context, b buyer, known *store.BillingAccount, after string) (string, error) {
	email := b.email
	if email == "" {
		email = known.Email
	}
	return d.provider.CreateCustomer(ctx, NewCustomer{
		Account: string(b.account), Email: email, Key: d.idempotencyKey("customer", string(b.account), email, after),
	})
}

// replaced is the account's new customer where somebody has deleted the old one
// at the provider, who would refuse it for good; empty: nobody has.
func (d *desk) replaced(ctx context.Context, st *store.Companion, b buyer, old string) (string, error) {
	deleted, err := d.provider.CustomerDeleted(ctx, old)
	if err != nil || !deleted {
		return "", err
	}
	known, err := st.BillingAccount(ctx, b.account)
	if err != nil {
		return "", err
	}
	id, err := d.newCustomer(ctx, b, known, old)
	if err != nil {
		return "", err
	}
	return st.ReplaceCustomer(ctx, b.account, old, id)
}

// How often a checkout begins anew because something has happened meanwhile: a
// page was paid, another tab was quicker, the customer is gone.
const checkoutAttempts = 4

// checkout opens a page on which the account pays for what it orders. A page
// that is open for the same order is answered again; one for another order is
// closed first, so that nobody pays twice.
func (d *desk) checkout(ctx context.Context, st *store.Companion, b buyer, o order) (*store.CheckoutSession, error) {
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
		page, err := d.page(ctx, st, b, customer, of)
		switch {
		case err == nil || attempt == checkoutAttempts:
			return page, err
		case errors.Is(err, ErrNotFound): // the customer, or the price
			other, failed := d.replaced(ctx, st, b, customer)
			if failed != nil || other == "" {
				return nil, errors.Join(err, failed)
			}
			customer = other
		case !errors.Is(err, errPageOver) && !errors.Is(err, store.ErrCheckoutRaced):
			return nil, err
		}
	}
}

// errPageOver says that the page that was to be closed was paid or has expired.
var errPageOver = errors.New("the page that was open is over")

// leastTime is how long a page must yet be open to be answered once more.
const leastTime = 5 * time.Minute

// page opens a page, or answers the one that is open already.
func (d *desk) page(ctx context.Context, st *store.Companion, b buyer, customer string, of *offer) (*store.CheckoutSession, error) {
	known, err := st.BillingAccount(ctx, b.account)
	if err != nil {
		return nil, err
	}
	last, err := st.LastCheckout(ctx, b.account)
	if err != nil {
		return nil, err
	}
	session := store.CheckoutSession{
		Account: b.account, Customer: customer, PlanID: of.plan.ID, Price: of.price.ID + of.price.LookupKey, Quantity: of.quantity,
		TrialDays: of.plan.TrialDays, CreatedBy: b.user,
	}
	if known.HadTrial {
		session.TrialDays = 0
	}
	after := ""
	if last != nil {
		after = last.ID
	}
	if last != nil && last.Open {
		if sameOrder(last, &session) && d.now().Add(leastTime).Before(last.ExpiresAt) {
			if err := d.canPay(ctx, customer); err != nil {
				return nil, err
			}
			return last, nil
		}
		if err := d.closePage(ctx, st, last.ID); err != nil {
			return nil, err
		}
	}
	return d.openPage(ctx, st, &session, customer, of, after)
}

// sameOrder reports whether the same customer is to pay the same on both pages.
func sameOrder(x, y *store.CheckoutSession) bool {
	return x.Customer == y.Customer && x.Price == y.Price && x.Quantity == y.Quantity && x.TrialDays == y.TrialDays
}

// canPay answers ErrNotFound for a customer that was deleted at the provider:
// opening a page says so, answering one that is open does not.
func (d *desk) canPay(ctx context.Context, customer string) error {
	deleted, err := d.provider.CustomerDeleted(ctx, customer)
	if err == nil && deleted {
		err = fmt.Errorf("%w: customer %s was deleted", ErrNotFound, customer)
	}
	return err
}

// closePage closes a page that nobody is to pay on any more. errPageOver: it may
// just have been paid, so that the customer is to be read again.
func (d *desk) closePage(ctx context.Context, st *store.Companion, id string) error {
	err := d.provider.CloseCheckout(ctx, id)
	over := errors.Is(err, ErrRefused) || errors.Is(err, ErrNotFound)
	if err != nil && !over {
		return err
	}
	if err := st.CloseCheckout(ctx, id); err != nil {
		return err
	}
	if over {
		return fmt.Errorf("%w: %w", errPageOver, err)
	}
	return nil
}

// openPage opens a page after the one that was the account's last. Where another
// request has opened one meanwhile, or the user was deleted, this one is closed again.
func (d *desk) openPage(
	ctx context.Context, st *store.Companion, session *store.CheckoutSession, customer string, of *offer, after string,
) (*store.CheckoutSession, error) {
	n := NewCheckout{
		Customer: customer, Account: string(session.Account), Price: of.price, Quantity: of.quantity, TrialDays: session.TrialDays,
		SuccessURL: d.settings.SuccessURL, CancelURL: d.settings.CancelURL,
	}
	n.Key = d.idempotencyKey("checkout", n.Account, customer, session.Price, strconv.FormatInt(n.Quantity, 10),
		strconv.FormatInt(n.TrialDays, 10), n.SuccessURL, n.CancelURL, after)
	page, err := d.provider.CreateCheckout(ctx, n)
	if err != nil {
		return nil, err
	}
	session.ID, session.URL, session.ExpiresAt = page.ID, page.URL, page.ExpiresAt
	err = st.SaveCheckout(ctx, *session, after)
	if errors.Is(err, store.ErrCheckoutRaced) || errors.Is(err, store.ErrUserDeleted) {
		if failed := d.provider.CloseCheckout(ctx, page.ID); failed != nil && !errors.Is(failed, ErrRefused) {
			return nil, failed
		}
	}
	if err != nil {
		return nil, err
	}
	return session, nil
}

// goesOn is the first subscription that is not over; nil: all are.
func goesOn(subs []Subscription) *Subscription {
	for i := range subs {
		if store.GoesOn(subs[i].Status) {
			return &subs[i]
		}
	}
	return nil
}

// portal opens the page on which the account manages what it has.
func (d *desk) portal(ctx context.Context, st *store.Companion, account quota.Subject) (string, error) {
	customer, err := d.customerOf(ctx, st, account)
	if err != nil {
		return "", err
	}
	address, err := d.provider.CreatePortal(ctx, customer, d.settings.ReturnURL)
	if errors.Is(err, ErrNotFound) {
		deleted, failed := d.provider.CustomerDeleted(ctx, customer)
		if deleted {
			return "", errNoCustomer // as if there never had been one
		}
		return "", errors.Join(err, failed)
	}
	return address, err
}

// sync reads the account's customer now. A session, where it is named, must be
// the account's own: whoever comes back to the wrong account is told.
func (d *desk) sync(ctx context.Context, st *store.Companion, account quota.Subject, session string) error {
	if session != "" {
		own, err := st.HasCheckout(ctx, account, session)
		if err != nil {
			return err
		}
		if !own {
			return errNoSession
		}
	}
	customer, err := d.customerOf(ctx, st, account)
	if err != nil {
		return err
	}
	_, err = d.syncNow(ctx, customer, "return from checkout")
	return err
}
