package quota

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func wait(d time.Duration) Outcome { return Outcome{Exceeded: true, Wait: d} }

func TestJudge(t *testing.T) {
	t.Parallel()
	minute := Charge{Key: Key{Name: "a"}, Limit: Limit{Max: 10, Window: time.Minute}, Cost: 1}
	hour := Charge{Key: Key{Name: "b"}, Limit: Limit{Max: 10, Window: time.Hour}, Cost: 1}
	month := Charge{Key: Key{Name: "jobs", Space: SpaceUsage, Period: PeriodMonth}, Limit: Limit{Max: 10}, Cost: 1, End: monday.Add(7 * 24 * time.Hour).Unix()}
	day := Charge{Key: Key{Name: "calls", Space: SpaceUsage, Period: PeriodDay}, Limit: Limit{Max: 10}, Cost: 1, End: monday.Add(12 * time.Hour).Unix()}
	level := Charge{Key: Key{Name: "storage", Space: SpaceUsage, Period: PeriodNone}, Limit: Limit{Max: 10}, Cost: 1}
	forced := func(c Charge) Charge { c.Force = true; return c }
	large := func(c Charge) Charge { c.Cost = 11; return c }
	needy := func(c Charge) Charge { c.Cost, c.Need, c.Limit.Max = 0, 1, 0; return c }
	ended := func(c Charge) Charge { c.End = monday.Unix() - 1; return c }
	over := Outcome{Exceeded: true}
	tests := []struct {
		name     string
		charges  []Charge
		outcomes []Outcome
		denied   int
		retry    time.Duration
	}{
		{"nothing", nil, nil, -1, 0},
		{"all fit", []Charge{minute, month}, []Outcome{{Used: 1}, {Used: 1}}, -1, 0},
		{"a rate", []Charge{minute, month}, []Outcome{wait(time.Second), {}}, 0, time.Second},
		{"the longest rate", []Charge{minute, hour, minute}, []Outcome{wait(9 * time.Second), wait(time.Minute), wait(time.Second)}, 1, time.Minute},
		{"the first of equals", []Charge{minute, hour}, []Outcome{wait(time.Second), wait(time.Second)}, 0, time.Second},
		{"a quota before a rate", []Charge{hour, day}, []Outcome{wait(time.Minute), over}, 1, 12 * time.Hour},
		{"a quota before a longer rate", []Charge{hour, day}, []Outcome{wait(13 * time.Hour), over}, 1, 13 * time.Hour},
		{"the longest quota", []Charge{day, month}, []Outcome{over, over}, 1, 7 * 24 * time.Hour},
		{"the longest quota, in the other order", []Charge{month, day}, []Outcome{over, over}, 0, 7 * 24 * time.Hour},
		{"never is longest", []Charge{month, level, day}, []Outcome{over, over, over}, 1, -1},
		{"a rate that never fits", []Charge{minute, hour}, []Outcome{wait(-1), wait(time.Minute)}, 0, -1},
		{"never stays never", []Charge{minute, hour}, []Outcome{wait(time.Minute), wait(-1)}, 1, -1},
		{"a cost above the quota", []Charge{large(month)}, []Outcome{over}, 0, -1},
		{"a need above the quota", []Charge{needy(month)}, []Outcome{over}, 0, -1},
		{"a period that has ended meanwhile", []Charge{ended(month)}, []Outcome{over}, 0, 0},
		{"shadow does not deny", []Charge{forced(minute), forced(month)}, []Outcome{wait(time.Second), over}, -1, 0},
		{"shadow does not lengthen", []Charge{forced(month), minute}, []Outcome{over, wait(time.Second)}, 1, time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := Decision{Outcomes: tt.outcomes, Denied: 42, RetryAfter: 42}
			d.Judge(tt.charges, monday)
			if d.Denied != tt.denied || d.RetryAfter != tt.retry || d.Admitted() != (tt.denied < 0) {
				t.Errorf("denied %d after %s, want %d after %s", d.Denied, d.RetryAfter, tt.denied, tt.retry)
			}
		})
	}
}

func TestFits(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		c    Charge
		used int64
		want bool
	}{
		{Charge{Limit: Limit{Max: 10}, Cost: 1}, 9, true},
		{Charge{Limit: Limit{Max: 10}, Cost: 1}, 10, false},
		{Charge{Limit: Limit{Max: 10}, Cost: 2}, 9, false},
		{Charge{Limit: Limit{Max: 10}}, 10, true},
		{Charge{Limit: Limit{Max: 10}}, 11, false},
		{Charge{Limit: Limit{Max: 10}, Need: 1}, 9, true},
		{Charge{Limit: Limit{Max: 10}, Need: 1}, 10, false},
		{Charge{Limit: Limit{Max: 0}, Cost: 1}, 0, false},
		{Charge{Limit: Limit{Unlimited: true}, Cost: MaxAmount}, MaxAmount, true},
		{Charge{Limit: Limit{Max: MaxAmount}, Cost: MaxAmount}, MaxAmount, false},
	} {
		if got := tt.c.Fits(tt.used); got != tt.want {
			t.Errorf("%+v beside %d: %v", tt.c, tt.used, got)
		}
	}
}

func TestDecisionReset(t *testing.T) {
	t.Parallel()
	d := Decision{Outcomes: []Outcome{{Used: 1}, {Used: 2}, {Used: 3}}, Denied: 1, RetryAfter: 9}
	first := &d.Outcomes[0]
	d.Reset(2)
	if len(d.Outcomes) != 2 || &d.Outcomes[0] != first || d.Outcomes[0] != (Outcome{}) || !d.Admitted() || d.RetryAfter != 0 {
		t.Errorf("%+v", d)
	}
	d.Reset(3)
	if d.Outcomes[2] != (Outcome{}) {
		t.Error("an outcome of before is left")
	}
	d.Reset(4)
	if len(d.Outcomes) != 4 {
		t.Errorf("%d outcomes", len(d.Outcomes))
	}
}

func TestAppendReceipts(t *testing.T) {
	t.Parallel()
	once := UserSubject("k").Digest()
	cs := []Charge{
		{Key: Key{Name: "api"}, Cost: 1},
		{Key: Key{Name: "jobs", Space: SpaceUsage, Start: 5}, Cost: 2, Account: "user:1", End: 9, Once: once},
		{Key: Key{Name: "seen", Space: SpaceUsage}, Cost: 2},
	}
	d := Decision{Denied: -1, Outcomes: []Outcome{{Charged: 1}, {Charged: 2}, {Charged: 0}}}
	want := []Receipt{{Key: cs[1].Key, Account: "user:1", End: 9, Amount: 2, Once: once}}
	if diff := cmp.Diff(want, AppendReceipts(nil, cs, &d)); diff != "" {
		t.Error(diff)
	}
}
