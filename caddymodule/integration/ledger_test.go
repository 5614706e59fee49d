package integration

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

// account compares what the records say of each user with what the backend saw.
// Every request that it saw and did not answer with an error is charged; beyond
// that only requests whose outcome nobody knows may be, and each has a name.
func account(t *testing.T, g *gateway, b *gatetest.Backend, tr *traffic) {
	t.Helper()
	l := newLedger(t, b, tr)
	lost, extra, named := l.compare(t, g)
	for user, beyond := range named {
		t.Logf("%s: %d charged of the %d requests whose outcome nobody knows, the first of which are %v",
			user, beyond, len(l.unknown[user]), l.unknown[user][:min(5, len(l.unknown[user]))])
	}
	t.Logf("%d requests, %d at the backend: LOST %d, DOUBLED %d", len(tr.sent), len(l.reached), lost, extra)
	if lost != 0 || extra != 0 {
		t.Errorf("LOST %d, DOUBLED %d", lost, extra)
	}
}

// ledger is what clients and backend together know of a load.
type ledger struct {
	users   int
	reached map[string]gatetest.Entry // at the backend, by the requests' names
	certain map[string]int64          // by user
	unknown map[string][]string       // by user, the requests' names
}

func newLedger(t *testing.T, b *gatetest.Backend, tr *traffic) *ledger {
	t.Helper()
	l := &ledger{users: tr.users, reached: firstOfEach(b), certain: map[string]int64{}, unknown: map[string][]string{}}
	for _, s := range tr.sent {
		e, reached := l.reached[s.id]
		switch {
		case errors.Is(s.err, syscall.ECONNREFUSED): // it met nobody
		case s.aborted || s.status == 0 || s.status == 502:
			if reached && e.Complete && e.Status == 200 && s.status == 200 {
				l.certain[s.user]++
				continue
			}
			l.unknown[s.user] = append(l.unknown[s.user], s.id)
		case s.status == 200:
			if !reached {
				t.Errorf("%s was answered 200 and never reached the backend", s.id)
			}
			l.certain[s.user]++
		case reached && s.status < 500:
			t.Errorf("%s was answered %d and had reached the backend", s.id, s.status)
		}
	}
	return l
}

// firstOfEach is what reached the backend, by name. The proxy's transport tries a
// GET again whose connection broke.
func firstOfEach(b *gatetest.Backend) map[string]gatetest.Entry {
	first := map[string]gatetest.Entry{}
	for _, e := range b.Entries() {
		if _, again := first[e.ID]; !again {
			first[e.ID] = e
		}
	}
	return first
}

// compare is what the records lack, what they have beyond all that may be
// charged, and how many requests of unknown outcome are charged of each user.
func (l *ledger) compare(t *testing.T, g *gateway) (lost, extra int64, named map[string]int64) {
	t.Helper()
	named = map[string]int64{}
	for i := range l.users {
		user := fmt.Sprint("u", i)
		beyond := g.used(t, user, "jobs", "month") - l.certain[user]
		lost += max(0, -beyond)
		extra += max(0, beyond-int64(len(l.unknown[user])))
		if beyond > 0 {
			named[user] = beyond
		}
	}
	return lost, extra, named
}

// decided is the time within which a request was decided: after it was sent, and
// before it reached the backend. All by the test's own clock.
type decided struct{ after, before time.Time }

// mostIn is the most requests that were certainly decided within one window,
// wherever it begins: each instant is tried at which one may have begun.
func mostIn(window time.Duration, ds []decided) (most int, begin time.Time) {
	slices.SortFunc(ds, func(a, b decided) int { return a.after.Compare(b.after) })
	for i := range ds {
		n, end := 0, ds[i].after.Add(window)
		for _, d := range ds[i:] {
			if !d.after.Before(end) {
				break
			}
			if d.before.Before(end) {
				n++
			}
		}
		if n > most {
			most, begin = n, ds[i].after
		}
	}
	return most, begin
}

// overAdmitted fails if more than limit requests of a user to /work were admitted
// in any window, and answers the most that were.
func overAdmitted(t *testing.T, b *gatetest.Backend, tr *traffic, limit int, window time.Duration) (most int) {
	t.Helper()
	reached, perUser := firstOfEach(b), map[string][]decided{}
	for _, s := range tr.sent {
		if e, ok := reached[s.id]; ok && s.path == "/work" {
			perUser[s.user] = append(perUser[s.user], decided{s.at, e.Began})
		}
	}
	over := 0
	for user, ds := range perUser {
		n, begin := mostIn(window, ds)
		most = max(most, n)
		if n > limit {
			if over++; over < 5 {
				t.Errorf("%s: %d requests within %s from %s on, the limit is %d", user, n, window, begin, limit)
			}
		}
	}
	if over > 0 {
		t.Errorf("%d users were admitted more often than %d times in %s", over, limit, window)
	}
	return most
}

// What looks for over-admission finds the mistakes that limiters make.
func TestMostInAWindow(t *testing.T) {
	t.Parallel()
	const window = time.Second
	zero := time.Now()
	at := func(ms ...int) []decided {
		var ds []decided
		for _, m := range ms {
			sent := zero.Add(time.Duration(m) * time.Millisecond)
			ds = append(ds, decided{sent, sent.Add(20 * time.Millisecond)})
		}
		return ds
	}
	for name, tt := range map[string]struct {
		ds   []decided
		want int
	}{
		"nothing":                      {nil, 0},
		"a window and its successor":   {at(0, 1, 2, 1000, 1001, 1002), 3},
		"fixed windows: twice as much": {at(900, 910, 920, 1000, 1010, 1020), 6},
		"one too many":                 {at(0, 400, 800, 970), 4},
		"the last may be outside":      {at(0, 400, 800, 990), 3},
		"in no order":                  {at(2000, 0, 2100, 100, 2200), 3},
	} {
		if got, _ := mostIn(window, tt.ds); got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
	}
}
