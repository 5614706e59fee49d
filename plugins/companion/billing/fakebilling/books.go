package fakebilling

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/quotagate/quotagate/plugins/companion/billing/stripefake"
	"go.uber.org/zap"
)

// books are the provider at work. They outlive the config that opened them, so
// nothing in them belongs to one.
type books struct {
	fake *stripefake.Fake
	// The client reaches the API on a loopback port with a key that nobody else
	// has: both are new with each process.
	address, key, secret string
	server               *http.Server
	log                  *zap.Logger
	stop                 context.CancelFunc
	work                 sync.WaitGroup

	mu     sync.Mutex
	takers []*taker // the newest config last
}

// taker is a config that takes events.
type taker struct {
	deliver func(ctx context.Context, body []byte, signature string) int
}

// catalogue is what can be bought: the seed plans' prices, in US cents.
func catalogue() []stripefake.Seed {
	return []stripefake.Seed{
		{Product: "Pro", LookupKey: "pro_monthly", Currency: "usd", Interval: "month", Amount: 1999},
		{Product: "Pro", LookupKey: "pro_yearly", Currency: "usd", Interval: "year", Amount: 19990},
		{Product: "Enterprise", LookupKey: "enterprise_monthly", Currency: "usd", Interval: "month", Amount: 9999},
		{Product: "Enterprise", LookupKey: "enterprise_yearly", Currency: "usd", Interval: "year", Amount: 99990},
	}
}

func openBooks(file string) (*books, error) {
	b := &books{
		key: "sk_test_" + rand.Text(), secret: "whsec_" + rand.Text(), log: caddy.Log().Named("quota_companion.billing.fake"),
	}
	var err error
	b.fake, err = stripefake.New(stripefake.Options{
		Key: b.key, File: file, Log: b.log, Receivers: []stripefake.Receiver{{Name: "companion", Secret: b.secret, Send: b.send}},
	})
	if err != nil {
		return nil, err
	}
	if err := b.fake.Seed(catalogue()); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		cancel()
		return nil, fmt.Errorf("listening on the loopback interface: %w", err)
	}
	b.address, b.stop = "http://"+l.Addr().String(), cancel
	b.server = &http.Server{Handler: b.fake, ReadHeaderTimeout: 10 * time.Second}
	b.work.Go(func() {
		if err := b.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			b.log.Error("the billing fake stopped serving", zap.Error(err))
		}
	})
	b.work.Go(func() { b.fake.Run(ctx) })
	return b, nil
}

// Destruct implements caddy.Destructor.
func (b *books) Destruct() error {
	b.stop()
	err := b.server.Close()
	b.work.Wait()
	return err
}

// join makes a config the one that takes events, until it leaves.
func (b *books) join(deliver func(context.Context, []byte, string) int, base string) (leave func()) {
	t := &taker{deliver}
	b.mu.Lock()
	b.takers = append(b.takers, t)
	b.mu.Unlock()
	b.fake.SetBaseURL(base)
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.takers = slices.DeleteFunc(b.takers, func(x *taker) bool { return x == t })
	}
}

// send gives an event to the newest config.
func (b *books) send(ctx context.Context, body []byte, signature string) error {
	b.mu.Lock()
	var to *taker
	if n := len(b.takers); n > 0 {
		to = b.takers[n-1]
	}
	b.mu.Unlock()
	if to == nil {
		return errNobody
	}
	if status := to.deliver(ctx, body, signature); status/100 != 2 {
		return fmt.Errorf("delivering a billing event: it was answered with %d", status)
	}
	return nil
}
