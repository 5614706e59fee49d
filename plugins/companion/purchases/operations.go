package purchases

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
	"github.com/quotagate/quotagate/plugins/companion/accounts"
	"github.com/quotagate/quotagate/plugins/companion/api"
	"github.com/quotagate/quotagate/plugins/companion/billing"
	"go.uber.org/zap"
)

// service is what the operations work with.
type service struct {
	store   func() (*store.Companion, error)
	billing *billing.Service
	log     *zap.Logger
}

// mount adds the operations to the server. A key or somebody who acts for
// another pays for nobody.
func mount(server *api.Server, s *service) {
	server.API().UseMiddleware(inPersonOnly)
	server.Idempotent(s.store)
	register(server.API(), s)
}

// Describe adds the operations to an API that is only looked at.
func Describe(a huma.API) { register(a, &service{}) }

func inPersonOnly(ctx huma.Context, next func(huma.Context)) {
	c, err := api.Caller(ctx.Context())
	if err == nil && c.Principal != nil && (c.Principal.KeyID != "" || c.Principal.Impersonator != "") {
		_, w := humago.Unwrap(ctx)
		api.Write(w, api.Refuse(http.StatusForbidden, "not_in_person", "Billing is for the user in person: not by an API key, and not as somebody else"))
		return
	}
	next(ctx)
}

// orderInput is a plan to buy, in the body or, as older clients send it, in the query.
type orderInput struct {
	Plan string `query:"plan" maxLength:"64" doc:"The plan's name, where the body has none."`
	Body *orderBody
}

type orderBody struct {
	Plan     string `json:"plan,omitempty" maxLength:"64" doc:"The plan's name."`
	Interval string `json:"interval,omitempty" enum:"month,year" doc:"How often is paid. Default: month for a first purchase, as it is for a change."`
	Quantity int64  `json:"quantity,omitempty" minimum:"1" maximum:"100000" doc:"How many seats of a plan that is priced by them."`
}

func (in *orderInput) order() (billing.Order, error) {
	o := billing.Order{Plan: in.Plan}
	if b := in.Body; b != nil {
		o.Interval, o.Quantity = b.Interval, b.Quantity
		if b.Plan != "" {
			o.Plan = b.Plan
		}
	}
	if o.Plan == "" {
		return o, api.Invalid("plan", "Field required")
	}
	return o, nil
}

type output[T any] struct{ Body T }

type checkoutAnswer struct {
	CheckoutURL string    `json:"checkout_url" doc:"The page to pay on: send the browser there."`
	SessionID   string    `json:"session_id"`
	ExpiresAt   time.Time `json:"expires_at" doc:"When the page can be paid on no more."`
}

type portalAnswer struct {
	PortalURL string `json:"portal_url" doc:"The page on which the plan is changed or cancelled and invoices are seen."`
}

type syncInput struct {
	Body *syncBody
}

type syncBody struct {
	SessionID string `json:"session_id,omitempty" maxLength:"255" doc:"The session that was paid, which must be of this account. Everything of the account is read."`
}

type cancelInput struct {
	Body *cancelBody
}

type cancelBody struct {
	At string `json:"at,omitempty" enum:"period_end,now" doc:"When the plan ends. Default: period_end."`
}

type billedAnswer struct {
	Subscription *accounts.Subscription `json:"subscription"`
}

type changePreview struct {
	AmountDueCents int64        `json:"amount_due_cents" doc:"What is paid at once, in the currency's minor unit; negative: credited."`
	Currency       string       `json:"currency"`
	EffectiveAt    time.Time    `json:"effective_at"`
	Lines          []changeLine `json:"lines"`
}

type changeLine struct {
	Description string `json:"description"`
	AmountCents int64  `json:"amount_cents"`
	Proration   bool   `json:"proration"`
}

type invoicesInput struct{ api.Page }

type invoiceList struct {
	Invoices []userInvoice `json:"invoices"`
	Total    int64         `json:"total"`
}

type userInvoice struct {
	ID                   string     `json:"id"`
	Number               string     `json:"number"`
	Status               string     `json:"status" enum:"open,paid,uncollectible,void"`
	Currency             string     `json:"currency"`
	AmountDueCents       int64      `json:"amount_due_cents"`
	AmountPaidCents      int64      `json:"amount_paid_cents"`
	AmountRemainingCents int64      `json:"amount_remaining_cents"`
	PeriodStart          *time.Time `json:"period_start"`
	PeriodEnd            *time.Time `json:"period_end"`
	CreatedAt            time.Time  `json:"created_at"`
	PaidAt               *time.Time `json:"paid_at"`
	HostedURL            string     `json:"hosted_url,omitempty" doc:"A page to see and pay it on."`
	PDFURL               string     `json:"pdf_url,omitempty"`
}

func register(a huma.API, s *service) {
	add(a, s, "create-checkout-session", "create-checkout-session", "Open a page on which a plan is paid for",
		"The page that is open for the same plan is answered again. 409 already_subscribed, with `portal_url`, for an account with a subscription.",
		[]int{404, 409}, s.checkout)
	add(a, s, "create-portal-session", "customer-portal", "Open the page on which the subscription is managed",
		"409 no_billing_account for an account that never bought anything.", []int{409}, s.portal)
	add(a, s, "sync-billing", "sync", "Read the subscription from the payment provider now",
		"For the page that a payer comes back to: it need not wait for the provider's word.", []int{404, 409}, s.sync)
	add(a, s, "preview-plan-change", "change-plan/preview", "Say what another plan would cost now", "Nothing is changed.", []int{404, 409}, s.preview)
	add(a, s, "change-plan", "change-plan", "Move to another plan",
		"To more at once, the difference being paid at once: 402 payment_declined, and nothing has changed, where that fails. To less when the period ends.",
		[]int{402, 404, 409}, s.change)
	add(a, s, "cancel-subscription", "cancel", "Cancel the subscription", "At the end of what is paid for, or now.", []int{409}, s.cancel)
	add(a, s, "resume-subscription", "resume", "Take back what is to happen when the period ends", "A cancellation, or a change to another plan.", []int{409}, s.resume)
	huma.Register(a, huma.Operation{
		OperationID: "list-invoices", Method: http.MethodGet, Path: "/v1/billing/invoices", Summary: "The account's invoices, the newest first",
		Tags: []string{"billing"}, Security: api.Authenticated(), Errors: errorsWith(),
	}, func(ctx context.Context, in *invoicesInput) (*output[invoiceList], error) {
		body, err := s.invoices(ctx, in)
		if err != nil {
			return nil, s.failure(ctx, "list-invoices", err)
		}
		return &output[invoiceList]{body}, nil
	})
}

func errorsWith(more ...int) []int {
	return append([]int{http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusServiceUnavailable}, more...)
}

// add registers a POST below /v1/billing/.
func add[I, O any](a huma.API, s *service, id, path, summary, description string, errs []int, f func(context.Context, *I) (O, error)) {
	huma.Register(a, huma.Operation{
		OperationID: id, Method: http.MethodPost, Path: "/v1/billing/" + path, Summary: summary, Description: description,
		Tags: []string{"billing"}, Security: api.Authenticated(), Errors: errorsWith(append(errs, http.StatusBadGateway)...),
	}, func(ctx context.Context, in *I) (*output[O], error) {
		body, err := f(ctx, in)
		if err != nil {
			return nil, s.failure(ctx, id, err)
		}
		return &output[O]{body}, nil
	})
}

// caller is the account that asks, and who asks for it.
func caller(ctx context.Context) (billing.Buyer, error) {
	c, err := api.Caller(ctx)
	if err != nil {
		return billing.Buyer{}, err
	}
	return billing.Buyer{Account: c.Entitlement.Account, User: c.Principal.Subject.ID(), Email: c.Principal.Email}, nil
}

func (s *service) checkout(ctx context.Context, in *orderInput) (checkoutAnswer, error) {
	o, err := in.order()
	if err != nil {
		return checkoutAnswer{}, err
	}
	b, err := caller(ctx)
	if err != nil {
		return checkoutAnswer{}, err
	}
	page, err := s.billing.Checkout(ctx, b, o)
	if billing.RefusalOf(err) == billing.AlreadySubscribed {
		address, failed := s.billing.Portal(ctx, b.Account)
		if failed != nil {
			return checkoutAnswer{}, failed
		}
		return checkoutAnswer{}, subscribed(absolute(ctx, address))
	}
	if err != nil {
		return checkoutAnswer{}, err
	}
	return checkoutAnswer{CheckoutURL: absolute(ctx, page.URL), SessionID: page.ID, ExpiresAt: page.ExpiresAt.UTC()}, nil
}

func (s *service) portal(ctx context.Context, _ *struct{}) (portalAnswer, error) {
	b, err := caller(ctx)
	if err != nil {
		return portalAnswer{}, err
	}
	address, err := s.billing.Portal(ctx, b.Account)
	return portalAnswer{absolute(ctx, address)}, err
}

func (s *service) sync(ctx context.Context, in *syncInput) (billedAnswer, error) {
	session := ""
	if in.Body != nil {
		session = in.Body.SessionID
	}
	return s.after(ctx, func(ctx context.Context, account quota.Subject) error { return s.billing.Sync(ctx, account, session) })
}

func (s *service) preview(ctx context.Context, in *orderInput) (changePreview, error) {
	o, err := in.order()
	if err != nil {
		return changePreview{}, err
	}
	b, err := caller(ctx)
	if err != nil {
		return changePreview{}, err
	}
	p, err := s.billing.Preview(ctx, b.Account, o)
	if err != nil {
		return changePreview{}, err
	}
	out := changePreview{AmountDueCents: p.AmountDue, Currency: p.Currency, EffectiveAt: p.EffectiveAt.UTC(), Lines: []changeLine{}}
	for _, l := range p.Lines {
		out.Lines = append(out.Lines, changeLine{l.Description, l.Amount, l.Proration})
	}
	return out, nil
}

func (s *service) change(ctx context.Context, in *orderInput) (billedAnswer, error) {
	o, err := in.order()
	if err != nil {
		return billedAnswer{}, err
	}
	return s.after(ctx, func(ctx context.Context, account quota.Subject) error { return s.billing.Change(ctx, account, o) })
}

func (s *service) cancel(ctx context.Context, in *cancelInput) (billedAnswer, error) {
	when := billing.AtPeriodEnd
	if in.Body != nil && in.Body.At == "now" {
		when = billing.AtOnce
	}
	return s.after(ctx, func(ctx context.Context, account quota.Subject) error { return s.billing.End(ctx, account, when) })
}

func (s *service) resume(ctx context.Context, _ *struct{}) (billedAnswer, error) {
	return s.after(ctx, func(ctx context.Context, account quota.Subject) error {
		return s.billing.End(ctx, account, billing.Never)
	})
}

// after does something for the account and answers its subscription, as it is then.
func (s *service) after(ctx context.Context, do func(context.Context, quota.Subject) error) (billedAnswer, error) {
	b, err := caller(ctx)
	if err != nil {
		return billedAnswer{}, err
	}
	if err := do(ctx, b.Account); err != nil {
		return billedAnswer{}, err
	}
	st, err := s.store()
	if err != nil {
		return billedAnswer{}, err
	}
	state, err := st.AccountState(ctx, b.Account)
	if err != nil {
		return billedAnswer{}, fmt.Errorf("loading the subscription: %w", err)
	}
	return billedAnswer{accounts.SubscriptionOf(state.Subscription)}, nil
}

func (s *service) invoices(ctx context.Context, in *invoicesInput) (invoiceList, error) {
	b, err := caller(ctx)
	if err != nil {
		return invoiceList{}, err
	}
	st, err := s.store()
	if err != nil {
		return invoiceList{}, err
	}
	list, total, err := st.Invoices(ctx, b.Account, int(in.Skip), int(in.Limit))
	if err != nil {
		return invoiceList{}, fmt.Errorf("loading the invoices: %w", err)
	}
	out := invoiceList{Invoices: make([]userInvoice, len(list)), Total: total}
	for i, x := range list {
		out.Invoices[i] = userInvoice{
			ID: x.ID, Number: x.Number, Status: x.Status, Currency: x.Currency, AmountDueCents: x.AmountDue, AmountPaidCents: x.AmountPaid,
			AmountRemainingCents: x.AmountRemaining, PeriodStart: moment(x.PeriodStart), PeriodEnd: moment(x.PeriodEnd),
			CreatedAt: x.CreatedAt.UTC(), PaidAt: moment(x.PaidAt), HostedURL: absolute(ctx, x.HostedURL), PDFURL: absolute(ctx, x.PDFURL),
		}
	}
	return out, nil
}

// moment is null for the zero time.
func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
