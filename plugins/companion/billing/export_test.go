package billing

import (
	"context"
	"regexp"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
	"go.uber.org/zap"
)

// Desk is billing at work, for tests of the package from outside.
type Desk struct{ d *desk }

// NewDesk is what a process would have.
func NewDesk(st *store.Companion, p Provider, s Settings, now func() time.Time, log *zap.Logger) Desk {
	return Desk{newDesk(func() (*store.Companion, error) { return st, nil }, p, s, now, log)}
}

// Open is Start without the work beside the requests.
func (s *Service) Open() error {
	ctx, cancel := context.WithCancel(context.Background())
	p, err := s.guest.Open(ctx, Env{Log: s.log, Deliver: s.Receive, Now: time.Now})
	if err != nil {
		cancel()
		return err
	}
	s.stop = cancel
	s.desk.Store(newDesk(s.open, p, s.settings(), time.Now, s.log))
	return nil
}

// Receive takes a webhook in.
func (d Desk) Receive(ctx context.Context, body []byte, signature string) int {
	return d.d.receive(ctx, body, signature)
}

// Round reads what is due.
func (d Desk) Round(ctx context.Context) (int, error) { return d.d.round(ctx) }

// Holder is the process's name in leases.
func (d Desk) Holder() string { return d.d.holder }

// LeaseFor sets how long the lease of the jobs is taken for.
func (d Desk) LeaseFor(ttl time.Duration) { d.d.lease = ttl }

// Tick does the jobs of reconciliation that are due.
func (d Desk) Tick(ctx context.Context) error { return d.d.tick(ctx) }

// Sync reads a customer now.
func (d Desk) Sync(ctx context.Context, customer string) error {
	_, err := d.d.syncNow(ctx, customer, "test")
	return err
}

// CustomerOf is the account's customer at the provider, made with the address if there is none.
func (d Desk) CustomerOf(ctx context.Context, account quota.Subject, email string) (string, error) {
	st, err := d.d.store()
	if err != nil {
		return "", err
	}
	return d.d.customer(ctx, st, buyer{account: account, user: account.ID(), email: email})
}

// Checkout, Change and End are what users ask.
func (d Desk) Checkout(ctx context.Context, account quota.Subject, plan, interval string) (*store.CheckoutSession, error) {
	st, err := d.d.store()
	if err != nil {
		return nil, err
	}
	return d.d.checkout(ctx, st, buyer{account: account, user: account.ID(), email: "a@example.com"}, order{plan: plan, interval: interval})
}

// Change changes the plan.
func (d Desk) Change(ctx context.Context, account quota.Subject, plan, interval string) error {
	st, err := d.d.store()
	if err != nil {
		return err
	}
	return d.d.change(ctx, st, account, order{plan: plan, interval: interval})
}

// Order is Checkout in a quantity.
func (d Desk) Order(ctx context.Context, account quota.Subject, plan string, quantity int64) (*store.CheckoutSession, error) {
	st, err := d.d.store()
	if err != nil {
		return nil, err
	}
	return d.d.checkout(ctx, st, buyer{account: account, user: account.ID()}, order{plan: plan, quantity: quantity})
}

// ChangeSeats is Change in a quantity.
func (d Desk) ChangeSeats(ctx context.Context, account quota.Subject, plan string, quantity int64) error {
	st, err := d.d.store()
	if err != nil {
		return err
	}
	return d.d.change(ctx, st, account, order{plan: plan, quantity: quantity})
}

// Preview says what a change would cost.
func (d Desk) Preview(ctx context.Context, account quota.Subject, plan, interval string) (Preview, error) {
	st, err := d.d.store()
	if err != nil {
		return Preview{}, err
	}
	return d.d.preview(ctx, st, account, order{plan: plan, interval: interval})
}

// Portal opens the portal.
func (d Desk) Portal(ctx context.Context, account quota.Subject) (string, error) {
	st, err := d.d.store()
	if err != nil {
		return "", err
	}
	return d.d.portal(ctx, st, account)
}

// Return is a user who comes back from paying.
func (d Desk) Return(ctx context.Context, account quota.Subject, session string) error {
	st, err := d.d.store()
	if err != nil {
		return err
	}
	return d.d.sync(ctx, st, account, session)
}

// Compare compares everything now.
func (d Desk) Compare(ctx context.Context) (*Comparison, error) {
	st, err := d.d.store()
	if err != nil {
		return nil, err
	}
	return d.d.compare(ctx, st, func(Drift) error { return nil })
}

// Run is the worker, until ctx ends.
func (d Desk) Run(ctx context.Context) { d.d.run(ctx) }

// End cancels or resumes.
func (d Desk) End(ctx context.Context, account quota.Subject, when When) error {
	st, err := d.d.store()
	if err != nil {
		return err
	}
	return d.d.end(ctx, st, account, when)
}

// Killed is a round of a process that is killed in the middle: it has leased and
// read what was due, and writes it when the function it returns is called, if ever.
func (d Desk) Killed(ctx context.Context) (func() error, error) {
	st, err := d.d.store()
	if err != nil {
		return nil, err
	}
	jobs, err := st.LeaseSyncs(ctx, d.d.holder, batch, leaseTime)
	if err != nil {
		return nil, err
	}
	late := func() error { return nil }
	for _, job := range jobs {
		read, err := d.d.fetch(ctx, job.Customer)
		if err != nil {
			return nil, err
		}
		next := late
		late = func() error {
			if err := next(); err != nil {
				return err
			}
			return d.d.apply(ctx, st, job, read)
		}
	}
	return late, nil
}

// Die is a round of a process that does not survive it, and how many it had leased.
func (d Desk) Die(ctx context.Context) (int, error) {
	st, err := d.d.store()
	if err != nil {
		return 0, err
	}
	jobs, err := st.LeaseSyncs(ctx, d.d.holder, batch, leaseTime)
	return len(jobs), err
}

// Refusals that tests of the package from outside know.
var (
	ErrSubscribed  = errSubscribed
	ErrNothingPaid = errNothingPaid
	ErrSamePlan    = errSamePlan
	ErrNoCustomer  = errNoCustomer
	ErrNoSession   = errNoSession
)

// MetricNames are the names of all metrics.
func MetricNames() []string {
	descs := make(chan *prometheus.Desc, 100)
	for _, c := range collectors() {
		c.Describe(descs)
	}
	close(descs)
	var names []string
	for d := range descs {
		names = append(names, regexp.MustCompile(`fqName: "([^"]+)"`).FindStringSubmatch(d.String())[1])
	}
	return names
}
