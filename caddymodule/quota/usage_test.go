package quota

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestSortTotals(t *testing.T) {
	t.Parallel()
	want := []Total{
		{Account: "org:a", Metric: "jobs", Period: PeriodMonth, Start: 9, Spent: 1},
		{Account: "user:a", Metric: "api_calls", Period: PeriodMonth, Start: 9},
		{Account: "user:a", Metric: "jobs", Period: PeriodDay, Start: 9},
		{Account: "user:a", Metric: "jobs", Period: PeriodMonth, Start: 3},
		{Account: "user:a", Metric: "jobs", Period: PeriodMonth, Start: 20},
		{Account: "user:b", Metric: "api_calls", Period: PeriodDay},
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		got := slices.Clone(want)
		rnd.Shuffle(len(got), func(i, j int) { got[i], got[j] = got[j], got[i] })
		if SortTotals(got); !slices.Equal(got, want) {
			t.Errorf("sorted: %v", got)
		}
	}
}

// A total is the counter's that the charges of its account spend.
func TestTotalKey(t *testing.T) {
	t.Parallel()
	cs := UsageCharges(&Entitlement{Account: "user:7"}, monday)
	if len(cs) == 0 {
		t.Fatal("nothing is charged")
	}
	for _, c := range cs {
		total := Total{Account: "user:7", Metric: c.Key.Name, Period: c.Key.Period, Start: c.Key.Start, End: c.End, Spent: 2, Refunded: 1}
		if total.Key() != c.Key {
			t.Errorf("%+v, want %+v", total.Key(), c.Key)
		}
	}
}
