package answer

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func rate(scope string, limit int64, window time.Duration) quota.Charge {
	return quota.Charge{
		Key:   quota.Key{Name: scope, Digest: quota.UserSubject("1").Digest()},
		Limit: quota.Limit{Max: limit, Window: window}, Cost: 1, Status: 429,
	}
}

func usage(metric string, p quota.Period, limit int64, status int) quota.Charge {
	start, end := p.Span(noon, time.Time{})
	c := quota.Charge{
		Key:   quota.Key{Name: metric, Space: quota.SpaceUsage, Period: p},
		Limit: quota.Limit{Max: limit}, Cost: 1, Status: status,
	}
	if p != quota.PeriodNone {
		c.Key.Start, c.End = start.Unix(), end.Unix()
	}
	return c
}

func counted(metric string, p quota.Period) quota.Charge {
	c := usage(metric, p, 0, 0)
	c.Limit = quota.Limit{Unlimited: true}
	return c
}

func forced(c quota.Charge) quota.Charge { c.Force = true; return c }

func byIP(c quota.Charge) quota.Charge {
	c.Key.Digest = quota.Subject("ip:192.0.2.1/32").Digest()
	return c
}

// decide judges outcomes as counters do.
func decide(cs []quota.Charge, outcomes ...quota.Outcome) *quota.Decision {
	d := &quota.Decision{Outcomes: outcomes}
	d.Judge(cs, noon)
	return d
}

func used(n int64) quota.Outcome { return quota.Outcome{Used: n} }
func over(n int64, wait time.Duration) quota.Outcome {
	return quota.Outcome{Used: n, Exceeded: true, Wait: wait}
}

func TestFields(t *testing.T) {
	t.Parallel()
	type fields struct{ Policy, Limit, XLimit, XRemaining, XReset string }
	tests := []struct {
		name     string
		charges  []quota.Charge
		outcomes []quota.Outcome
		at       time.Time
		want     fields
	}{
		{
			name:    "one rate admitted",
			charges: []quota.Charge{rate("api", 300, time.Minute)}, outcomes: []quota.Outcome{used(1)},
			want: fields{`"api";q=300;w=60`, `"api";r=299;t=60`, "300", "299", "1795435260"},
		},
		{
			name:    "one rate denied",
			charges: []quota.Charge{rate("api", 60, time.Minute)}, outcomes: []quota.Outcome{over(60, 11001*time.Millisecond)},
			want: fields{`"api";q=60;w=60`, `"api";r=0;t=12`, "60", "0", "1795435212"},
		},
		{
			name:     "rate, quota and what is only counted",
			charges:  []quota.Charge{rate("api", 300, time.Minute), rate("jobs", 10, time.Hour), usage("jobs", quota.PeriodMonth, 10, 402), counted("jobs", quota.PeriodDay)},
			outcomes: []quota.Outcome{used(1), used(4), used(9), used(9)},
			want: fields{
				`"api";q=300;w=60, "jobs";q=10;w=3600, "jobs/month";q=10`,
				`"api";r=299;t=60, "jobs";r=6;t=3600, "jobs/month";r=1;t=648000`, "10", "6", "1795438800",
			},
		},
		{
			name:     "quota denied beside an admitted rate",
			charges:  []quota.Charge{rate("api", 300, time.Minute), usage("api_calls", quota.PeriodDay, 1000, 429)},
			outcomes: []quota.Outcome{used(7), over(1000, 0)},
			want: fields{
				`"api";q=300;w=60, "api_calls/day";q=1000`,
				`"api";r=293;t=60, "api_calls/day";r=0;t=43200`, "1000", "0", "1795478400",
			},
		},
		{
			name:    "a level has no reset",
			charges: []quota.Charge{usage("storage_bytes", quota.PeriodNone, 1<<30, 402)}, outcomes: []quota.Outcome{used(24)},
			want: fields{`"storage_bytes/none";q=1073741824`, `"storage_bytes/none";r=1073741800`, "1073741824", "1073741800", ""},
		},
		{
			name:    "waiting does not help",
			charges: []quota.Charge{rate("api", 0, time.Minute)}, outcomes: []quota.Outcome{over(0, -1)},
			want: fields{`"api";q=0;w=60`, `"api";r=0`, "0", "0", ""},
		},
		{
			name:    "sub-second window, and a clock between seconds",
			charges: []quota.Charge{rate("api", 5, 100*time.Millisecond)}, outcomes: []quota.Outcome{used(1)},
			at:   noon.Add(300 * time.Millisecond),
			want: fields{`"api";q=5;w=1`, `"api";r=4;t=1`, "5", "4", "1795435201"},
		},
		{
			name:     "shadow and unlimited are not shown",
			charges:  []quota.Charge{forced(rate("api", 1, time.Minute)), counted("jobs", quota.PeriodMonth), forced(usage("jobs", quota.PeriodDay, 1, 402))},
			outcomes: []quota.Outcome{over(1, time.Second), used(9), over(9, 0)},
			want:     fields{},
		},
		{
			name:     "one name twice shows the tighter",
			charges:  []quota.Charge{rate("login", 50, time.Hour), byIP(rate("login", 10, time.Hour)), rate("api", 60, time.Minute)},
			outcomes: []quota.Outcome{used(3), used(3), used(1)},
			want: fields{
				`"login";q=10;w=3600, "api";q=60;w=60`, `"login";r=7;t=3600, "api";r=59;t=60`, "10", "7", "1795438800",
			},
		},
		{
			name:     "one name twice, the denying one first",
			charges:  []quota.Charge{rate("login", 1, time.Hour), byIP(rate("login", 1, time.Minute))},
			outcomes: []quota.Outcome{used(1), over(1, 30*time.Second)},
			want:     fields{`"login";q=1;w=60`, `"login";r=0;t=30`, "1", "0", "1795435230"},
		},
		{
			name:     "equals are shown once",
			charges:  []quota.Charge{rate("a", 5, time.Minute), byIP(rate("a", 5, time.Hour))},
			outcomes: []quota.Outcome{used(1), used(1)},
			want:     fields{`"a";q=5;w=60`, `"a";r=4;t=60`, "5", "4", "1795435260"},
		},
		{
			name:    "fields hold 15 digits, X-RateLimit any number",
			charges: []quota.Charge{rate("api", quota.MaxAmount, time.Minute)}, outcomes: []quota.Outcome{used(0)},
			want: fields{`"api";q=999999999999999;w=60`, `"api";r=999999999999999;t=60`, "9007199254740992", "9007199254740992", "1795435260"},
		},
		{
			name:    "used beyond a lowered limit",
			charges: []quota.Charge{usage("jobs", quota.PeriodMonth, 10, 402)}, outcomes: []quota.Outcome{over(500, 0)},
			want: fields{`"jobs/month";q=10`, `"jobs/month";r=0;t=648000`, "10", "0", "1796083200"},
		},
		{name: "counters unreachable", charges: []quota.Charge{rate("api", 300, time.Minute)}},
		{name: "nothing charged"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			at := tt.at
			if at.IsZero() {
				at = noon
			}
			d := &quota.Decision{Outcomes: tt.outcomes, Denied: -1}
			if tt.outcomes != nil {
				d.Judge(tt.charges, at)
			}
			var f Fields
			f.Build(tt.charges, d, at)
			h := http.Header{}
			f.Apply(h, ModeBoth)
			got := fields{h.Get("RateLimit-Policy"), h.Get("RateLimit"), h.Get("X-RateLimit-Limit"), h.Get("X-RateLimit-Remaining"), h.Get("X-RateLimit-Reset")}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestFieldsApply(t *testing.T) {
	t.Parallel()
	cs := []quota.Charge{rate("api", 300, time.Minute)}
	draft := http.Header{"Ratelimit-Policy": {`"api";q=300;w=60`}, "Ratelimit": {`"api";r=299;t=60`}}
	legacy := http.Header{"X-Ratelimit-Limit": {"300"}, "X-Ratelimit-Remaining": {"299"}, "X-Ratelimit-Reset": {"1795435260"}}
	join := func(hs ...http.Header) http.Header {
		all := http.Header{}
		for _, h := range hs {
			for k, v := range h {
				all[k] = v
			}
		}
		return all
	}
	tests := []struct {
		name          string
		mode          Mode
		backend, want http.Header
	}{
		{name: "both", mode: ModeBoth, want: join(draft, legacy)},
		{name: "draft", mode: ModeDraft, want: draft},
		{name: "legacy", mode: ModeLegacy, want: legacy},
		{name: "off", mode: ModeOff, want: http.Header{}},
		{name: "backend's legacy family", mode: ModeBoth, backend: http.Header{"X-Ratelimit-Limit": {"7"}}, want: join(draft, http.Header{"X-Ratelimit-Limit": {"7"}})},
		{name: "backend's remaining alone", mode: ModeBoth, backend: http.Header{"X-Ratelimit-Remaining": {"7"}}, want: join(draft, http.Header{"X-Ratelimit-Remaining": {"7"}})},
		{name: "backend's draft family", mode: ModeBoth, backend: http.Header{"Ratelimit": {`"x";r=1`}}, want: join(legacy, http.Header{"Ratelimit": {`"x";r=1`}})},
		{name: "backend's older draft", mode: ModeBoth, backend: http.Header{"Ratelimit-Remaining": {"3"}}, want: join(legacy, http.Header{"Ratelimit-Remaining": {"3"}})},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var f Fields
			f.Build(cs, decide(cs, used(1)), noon)
			h := http.Header{}
			if tt.backend != nil {
				h = tt.backend.Clone()
			}
			f.Apply(h, tt.mode)
			if diff := cmp.Diff(tt.want, h); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestFieldsAreNotSharedBetweenValues(t *testing.T) {
	t.Parallel()
	var f Fields
	cs := []quota.Charge{rate("api", 300, time.Minute)}
	f.Build(cs, decide(cs, used(2)), noon)
	h := http.Header{}
	f.Apply(h, ModeBoth)
	h.Add("RateLimit", "more")
	if got := h.Get("X-RateLimit-Remaining"); got != "298" {
		t.Errorf("an added value reached a neighbour: %s", got)
	}
	f.Build(nil, &quota.Decision{Denied: -1}, noon)
	empty := http.Header{}
	f.Apply(empty, ModeBoth)
	if len(empty) != 0 {
		t.Errorf("nothing was charged, and the answer says %v", empty)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for _, m := range []Mode{ModeBoth, ModeDraft, ModeLegacy, ModeOff} {
		if got, err := ParseMode(m.String()); err != nil || got != m {
			t.Errorf("ParseMode(%s) = %v, %v", m, got, err)
		}
	}
	for _, s := range []Style{StyleFastAPI, StyleProblem} {
		if got, err := ParseStyle(s.String()); err != nil || got != s {
			t.Errorf("ParseStyle(%s) = %v, %v", s, got, err)
		}
	}
	if _, err := ParseMode("on"); err == nil {
		t.Error("ParseMode(on) is no error")
	}
	if _, err := ParseStyle(""); err == nil {
		t.Error("ParseStyle of nothing is no error")
	}
}

// More values than the room of a Fields holds, and what one answer says does not
// change with the next.
func TestFieldsOutgrowTheirRoom(t *testing.T) {
	t.Parallel()
	var cs []quota.Charge
	var want []string
	for i := range 40 {
		name := fmt.Sprintf("scope-%02d", i)
		cs = append(cs, rate(name, 300, time.Minute))
		want = append(want, fmt.Sprintf("%q;q=300;w=60", name))
	}
	outcomes := make([]quota.Outcome, len(cs))
	var long, short Fields
	h, other := http.Header{}, http.Header{}
	long.Build(cs, decide(cs, outcomes...), noon)
	long.Apply(h, ModeBoth)
	short.Build(cs[:1], decide(cs[:1], outcomes[:1]...), noon)
	short.Apply(other, ModeBoth)
	if got := h.Get("RateLimit-Policy"); got != strings.Join(want, ", ") {
		t.Errorf("got %s", got)
	}
	if got := other.Get("RateLimit-Policy") + other.Get("X-RateLimit-Remaining"); got != want[0]+"300" {
		t.Errorf("got %s", got)
	}
}

// Not parallel: it counts allocations.
func TestFieldsAllocateNothing(t *testing.T) {
	cs := []quota.Charge{rate("api", 300, time.Minute), usage("api_calls", quota.PeriodDay, 50000, 429)}
	d := decide(cs, used(17), used(4711))
	var f Fields
	if n := testing.AllocsPerRun(100, func() { f.Build(cs, d, noon) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkFields(b *testing.B) {
	cs := []quota.Charge{
		rate("api", 300, time.Minute), usage("api_calls", quota.PeriodDay, 50000, 429), counted("api_calls", quota.PeriodMonth),
	}
	d := decide(cs, used(17), used(4711), used(90000))
	var f Fields
	h := http.Header{"Content-Type": {"application/json"}, "Content-Length": {"2"}, "Date": {""}, "Server": {"uvicorn"}}
	b.ReportAllocs()
	for b.Loop() {
		f.Build(cs, d, noon)
		f.Apply(h, ModeBoth)
		delete(h, keyPolicy)
		delete(h, keyLimit)
		delete(h, keyXLimit)
		delete(h, keyXRemain)
		delete(h, keyXReset)
	}
}
