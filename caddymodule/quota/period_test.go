package quota

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// daysIn is the month's length by the rule itself, not by package time.
func daysIn(year, month int) int {
	switch month {
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	case 4, 6, 9, 11:
		return 30
	}
	return 31
}

// billingStarts steps through the days of 1895..2105 and notes where a billing
// period of the anchor begins.
func billingStarts(anchor time.Time) []time.Time {
	h, m, s := anchor.Clock()
	var starts []time.Time
	for year := 1895; year <= 2105; year++ {
		for month := 1; month <= 12; month++ {
			for day := 1; day <= daysIn(year, month); day++ {
				last := day == daysIn(year, month)
				if day == anchor.Day() || last && anchor.Day() > day {
					starts = append(starts, time.Date(year, time.Month(month), day, h, m, s, 0, time.UTC))
				}
			}
		}
	}
	return starts
}

func TestBillingModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		year, month := rapid.IntRange(1998, 2032).Draw(t, "year"), rapid.IntRange(1, 12).Draw(t, "month")
		day := min(daysIn(year, month), rapid.OneOf(rapid.SampledFrom([]int{1, 28, 29, 30, 31}), rapid.IntRange(1, 31)).Draw(t, "day"))
		anchor := time.Date(year, time.Month(month), day, 0, 0, 0, 0, time.UTC).
			Add(time.Duration(rapid.SampledFrom([]int{0, 1, 43_200, 86_399}).Draw(t, "second")) * time.Second)
		zone := time.FixedZone("", rapid.SampledFrom([]int{0, 14 * 3600, -12 * 3600}).Draw(t, "zone"))

		starts := billingStarts(anchor)
		i := rapid.IntRange(1, len(starts)-2).Draw(t, "period")
		from, to := starts[i], starts[i+1]
		for _, now := range []time.Time{
			from, from.Add(1), from.Add(time.Second), from.Add(to.Sub(from) / 2),
			to.Add(-time.Second), to.Add(-1),
			from.Add(time.Duration(rapid.Int64Range(0, int64(to.Sub(from))-1).Draw(t, "offset"))),
		} {
			start, end := PeriodBilling.Span(now.In(zone), anchor.In(zone))
			if !start.Equal(from) || !end.Equal(to) {
				t.Fatalf("anchor %s, now %s: %s..%s, want %s..%s", anchor, now, start, end, from, to)
			}
			if start.Location() != time.UTC || end.Location() != time.UTC {
				t.Fatal("a period that is not in UTC")
			}
		}
	})
}

// TestBillingClamp spells out the rule: always clamped from the original anchor.
func TestBillingClamp(t *testing.T) {
	t.Parallel()
	anchor := time.Date(2027, 1, 31, 10, 0, 0, 0, time.UTC)
	want := []string{"2027-01-31", "2027-02-28", "2027-03-31", "2027-04-30", "2027-05-31", "2027-06-30"}
	now := anchor
	for i := range len(want) - 1 {
		start, end := PeriodBilling.Span(now, anchor)
		if got := start.Format(time.DateOnly); got != want[i] {
			t.Errorf("period %d begins %s, want %s", i, got, want[i])
		}
		if got := end.Format(time.DateOnly); got != want[i+1] {
			t.Errorf("period %d ends %s, want %s", i, got, want[i+1])
		}
		now = end
	}
	if start, _ := PeriodBilling.Span(time.Date(2028, 3, 1, 0, 0, 0, 0, time.UTC), anchor); start.Format(time.DateOnly) != "2028-02-29" {
		t.Errorf("in a leap year it begins %s", start)
	}
}

// TestCalendarModel steps through every hour of some years: days and months
// hold it, without gap or overlap.
func TestCalendarModel(t *testing.T) {
	t.Parallel()
	for _, year := range []int{1999, 2000, 2026, 2028, 2100} {
		for month := 1; month <= 12; month++ {
			for day := 1; day <= daysIn(year, month); day++ {
				midnight := time.Date(year, time.Month(month), day, 0, 0, 0, 0, time.UTC)
				first := time.Date(year, time.Month(month), 1, 0, 0, 0, 0, time.UTC)
				next := first.Add(time.Duration(daysIn(year, month)) * 24 * time.Hour)
				for _, now := range []time.Time{midnight, midnight.Add(13 * time.Hour), midnight.Add(24*time.Hour - 1)} {
					checkSpan(t, PeriodDay, now, midnight, midnight.Add(24*time.Hour))
					checkSpan(t, PeriodMonth, now, first, next)
					checkSpan(t, PeriodBilling, now, first, next) // without an anchor
				}
			}
		}
	}
}

func checkSpan(t *testing.T, p Period, now, from, to time.Time) {
	t.Helper()
	for _, at := range []time.Time{now, now.In(time.FixedZone("", -11*3600))} {
		start, end := p.Span(at, time.Time{})
		if !start.Equal(from) || !end.Equal(to) {
			t.Fatalf("%s at %s: %s..%s, want %s..%s", p, at, start, end, from, to)
		}
	}
}

func TestLevelSpan(t *testing.T) {
	t.Parallel()
	if start, end := PeriodNone.Span(time.Now(), time.Now()); !start.IsZero() || !end.IsZero() {
		t.Errorf("a level lasts from %s to %s", start, end)
	}
}

func TestParsePeriod(t *testing.T) {
	t.Parallel()
	for p := PeriodDay; p <= PeriodNone; p++ {
		if got, err := ParsePeriod(p.String()); err != nil || got != p {
			t.Errorf("%s: %v, %v", p, got, err)
		}
	}
	for _, s := range []string{"", "Day", "week", "period(4)"} {
		if _, err := ParsePeriod(s); err == nil {
			t.Errorf("%q is a period", s)
		}
	}
	if got := Period(9).String(); got != "period(9)" {
		t.Error(got)
	}
	if set := Periods(0).With(PeriodDay).With(PeriodNone); !set.Has(PeriodDay) || !set.Has(PeriodNone) || set.Has(PeriodMonth) || set.Has(PeriodBilling) {
		t.Errorf("the set is %b", set)
	}
}
