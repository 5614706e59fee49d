package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

// account compares what the records say of each user with what clients, backend
// and gateway know of each request. Charged beyond what is certain may only be
// requests whose outcome nobody knows, and each of those is named.
func account(t *testing.T, g *gateway, b *gatetest.Backend, tr *traffic) {
	t.Helper()
	l := newLedger(t, b, tr, g.handled(t))
	lost, extra, beyond := l.compare(t, g)
	for user, open := range l.unknown {
		for _, name := range open {
			t.Logf("outcome unknown: %s of %s (%d of the %d of this user are charged)", name, user, beyond[user], len(open))
		}
	}
	t.Logf("%d requests, %d at the backend, %d of unknown outcome: LOST %d, DOUBLED %d", len(tr.sent), len(l.reached), l.open(), lost, extra)
	if lost != 0 || extra != 0 {
		t.Errorf("LOST %d, DOUBLED %d", lost, extra)
	}
}

// ledger is what is known of a load.
type ledger struct {
	users   int
	reached map[string]gatetest.Entry // at the backend, by the requests' names
	certain map[string]int64          // charged, by user
	unknown map[string][]string       // by user, the requests' names
}

// handled is the status of each request by its name that the access log tells of,
// if the site has one; negative: it was denied.
func (g *gateway) handled(t *testing.T) map[string]int {
	t.Helper()
	handled := map[string]int{}
	for text := range strings.Lines(g.logged()) {
		var entry struct {
			Msg      string
			Status   int
			Decision string `json:"quota_decision_id"`
			Request  struct{ Headers http.Header }
		}
		if json.Unmarshal([]byte(text), &entry) != nil || entry.Msg != "handled request" {
			continue
		}
		if entry.Decision != "" {
			entry.Status = -entry.Status
		}
		handled[entry.Request.Headers.Get(gatetest.IDHeader)] = entry.Status
	}
	return handled
}

// loggedOf are the lines of the log that name a request.
func (g *gateway) loggedOf(id string) string {
	var lines strings.Builder
	for text := range strings.Lines(g.logged()) {
		if strings.Contains(text, `"`+id+`"`) {
			lines.WriteString(text)
		}
	}
	return lines.String()
}

// newLedger judges each request. What the backend saw was admitted, and stays
// charged unless the gateway passed an error of the backend's on.
func newLedger(t *testing.T, b *gatetest.Backend, tr *traffic, handled map[string]int) *ledger {
	t.Helper()
	l := &ledger{users: tr.users, reached: firstOfEach(b), certain: map[string]int64{}, unknown: map[string][]string{}}
	for _, s := range tr.sent {
		_, reached := l.reached[s.id]
		status, known := handled[s.id]
		switch {
		case s.status == 200 && !reached:
			t.Errorf("%s was answered 200 and never reached the backend", s.id)
		case reached && (status < 0 || s.status >= 400 && s.status < 499):
			t.Errorf("%s was denied (%d) and had reached the backend", s.id, s.status)
		case reached && (s.status == 500 || status == 500): // given back, where a rule says so
		case reached:
			l.certain[s.user]++
		case status < 0, s.status >= 400 && s.status != 499 && s.status != 502:
		case len(handled) > 0 && !known: // the gateway never read it
		case !s.written.Load(): // there was none
		default:
			l.unknown[s.user] = append(l.unknown[s.user], fmt.Sprintf("%s (at the client: status %d, %v; at the gateway: status %d)", s.id, s.status, s.err, status))
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

// open counts the requests of unknown outcome.
func (l *ledger) open() int {
	n := 0
	for _, names := range l.unknown {
		n += len(names)
	}
	return n
}

// compare is what the records lack, what they have beyond all that may be
// charged, and how much they have of each user beyond what is certain.
func (l *ledger) compare(t *testing.T, g *gateway) (lost, extra int64, beyond map[string]int64) {
	t.Helper()
	beyond = map[string]int64{}
	for i := range l.users {
		user := fmt.Sprint("u", i)
		more := g.used(t, user, "jobs", "month") - l.certain[user]
		lost += max(0, -more)
		extra += max(0, more-int64(len(l.unknown[user])))
		beyond[user] = more
	}
	return lost, extra, beyond
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
