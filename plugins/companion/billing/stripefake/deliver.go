package stripefake

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"go.uber.org/zap"
)

// Receiver is told of events.
type Receiver struct {
	// Name tells receivers apart, and is the same after a restart.
	Name string
	// Secret signs what is sent (whsec_...).
	Secret string
	// Livemode says which mode's events.
	Livemode bool
	// Types are the types of events; empty: all.
	Types []string
	// Send delivers one message. An error has it sent again later, for three days.
	// If it is nil, messages wait for Take.
	Send func(ctx context.Context, payload []byte, signature string) error
}

// Post sends messages to a URL, and is content with an answer of 2xx.
func Post(client *http.Client, url string) func(context.Context, []byte, string) error {
	return func(ctx context.Context, payload []byte, signature string) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(payload))
		if err != nil {
			return fmt.Errorf("making a webhook request: %w", err)
		}
		req.Header.Set("Content-Type", "application/json; charset=utf-8")
		req.Header.Set("User-Agent", "Stripe/1.0 (+https://stripe.com/docs/webhooks)")
		req.Header.Set("Stripe-Signature", signature)
		res, err := client.Do(req)
		if err != nil {
			return fmt.Errorf("sending a webhook: %w", err)
		}
		defer func() { _ = res.Body.Close() }()
		if _, err := io.Copy(io.Discard, io.LimitReader(res.Body, maxBody)); err != nil {
			return fmt.Errorf("reading the answer to a webhook: %w", err)
		}
		if res.StatusCode/100 != 2 {
			return fmt.Errorf("sending a webhook: the answer was %d", res.StatusCode)
		}
		return nil
	}
}

// Signature is the Stripe-Signature header of a payload sent at a time: the
// scheme v1, an HMAC-SHA-256 over "<seconds>.<payload>".
func Signature(payload []byte, secret string, at time.Time) string {
	seconds := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(seconds + "."))
	mac.Write(payload)
	return "t=" + seconds + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}

// Message is an event that waits for a receiver without Send.
type Message struct {
	Receiver, Event, Type string
	Created               time.Time
	Payload               []byte
	Signature             string
}

// Take is all messages that wait, in the order of their events. The fake forgets
// them: to lose, repeat, delay or shuffle them is the caller's.
func (f *Fake) Take() []Message {
	f.mu.Lock()
	defer f.mu.Unlock()
	var taken []Message
	for _, m := range f.modes() {
		m.Deliveries.drop(func(d *delivery) bool {
			r := f.receiver(d.Receiver)
			if r == nil || r.Send != nil {
				return false
			}
			e := m.Events.get(d.Event)
			payload, err := json.Marshal(m.eventObject(e))
			if err != nil {
				panic(err) // it was made of JSON
			}
			e.Pending--
			taken = append(taken, Message{
				Receiver: r.Name, Event: e.ID, Type: e.Type, Created: time.Unix(e.Created, 0).UTC(),
				Payload: payload, Signature: Signature(payload, r.Secret, f.wallClock()),
			})
			return true
		})
	}
	return taken
}

// wallClock is what messages are signed by, under the lock.
func (f *Fake) wallClock() time.Time {
	if f.frozenClock {
		return time.Unix(f.state.Clock, 0)
	}
	return f.options.Clock()
}

func (f *Fake) receiver(name string) *Receiver {
	for i := range f.options.Receivers {
		if f.options.Receivers[i].Name == name {
			return &f.options.Receivers[i]
		}
	}
	return nil
}

// ring tells Run that a delivery may wait.
func (f *Fake) ring() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// Waits between attempts to deliver: doubling from a second, as long as three
// days have not passed, as at Stripe.
const (
	firstRetry  = 1
	lastRetry   = 6 * hour
	giveUpAfter = 3 * day
)

// Deliver sends each message that is due once, in order. Those that fail are due
// again later.
func (f *Fake) Deliver(ctx context.Context) {
	for _, m := range f.modes() {
		for _, d := range f.dueDeliveries(m) {
			if ctx.Err() != nil {
				return
			}
			f.deliver(ctx, m, d)
		}
	}
}

func (f *Fake) dueDeliveries(m *mode) []delivery {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.wallClock().Unix()
	var due []delivery
	m.Deliveries.drop(func(d *delivery) bool {
		r := f.receiver(d.Receiver)
		switch {
		case r == nil: // it is no longer configured
			m.arrived(d)
			return true
		case r.Send != nil && d.Next <= now:
			due = append(due, *d)
		}
		return false
	})
	return due
}

func (f *Fake) deliver(ctx context.Context, m *mode, d delivery) {
	f.mu.Lock()
	r, e := f.receiver(d.Receiver), m.Events.get(d.Event)
	payload, err := json.Marshal(m.eventObject(e))
	at := f.wallClock()
	f.mu.Unlock()
	if err == nil {
		err = r.Send(ctx, payload, Signature(payload, r.Secret, at))
	}
	if ctx.Err() != nil {
		return // not an attempt: it will be made after the restart
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	row := m.Deliveries.get(d.ID)
	if row == nil {
		return
	}
	if err != nil {
		f.options.Log.Warn("a billing webhook was not delivered", zap.String("event", d.Event),
			zap.String("type", e.Type), zap.Int("attempt", d.Attempts+1), zap.Error(err))
		row.Attempts++
		row.Next = at.Unix() + min(firstRetry<<min(row.Attempts-1, 20), lastRetry)
		if row.Next < e.Created+giveUpAfter || row.Attempts < 3 {
			return
		}
	}
	m.Deliveries.drop(func(x *delivery) bool { return x == row })
	m.arrived(row)
}

// arrived counts a delivery off its event.
func (m *mode) arrived(d *delivery) {
	if e := m.Events.get(d.Event); e != nil {
		e.Pending--
	}
}
