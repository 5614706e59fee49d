package quota

import (
	"fmt"
	"time"
)

// Period is the span in which a metric is counted. All periods are UTC.
type Period uint8

// The periods. A metric with PeriodNone is a level: it never resets.
const (
	PeriodDay Period = iota
	PeriodMonth
	PeriodBilling
	PeriodNone
)

var periodNames = [...]string{"day", "month", "billing", "none"}

// String is the period's name in plans, usage rows and answers.
func (p Period) String() string {
	if int(p) < len(periodNames) {
		return periodNames[p]
	}
	return fmt.Sprintf("period(%d)", uint8(p))
}

// ParsePeriod is the inverse of String.
func ParsePeriod(s string) (Period, error) {
	for i, name := range periodNames {
		if s == name {
			return Period(i), nil
		}
	}
	return 0, fmt.Errorf("unknown period %q: want day, month, billing or none", s)
}

// Span is the period that contains now: start inclusive, end exclusive. A level
// has one span, from the zero time to the zero time. The anchor is looked at for
// PeriodBilling only: the n-th billing period begins n calendar months after the
// anchor, its day clamped to the month's length and always taken from the
// anchor itself (31 Jan, 28 Feb, 31 Mar). A zero anchor means calendar months.
func (p Period) Span(now, anchor time.Time) (start, end time.Time) {
	now = now.UTC()
	switch p {
	case PeriodDay:
		start = now.Truncate(day)
		return start, start.Add(day)
	case PeriodBilling:
		if !anchor.IsZero() {
			return billingSpan(now, anchor.UTC())
		}
		fallthrough
	case PeriodMonth:
		y, m, d := now.Date()
		start = now.Truncate(day).Add(day * time.Duration(1-d))
		return start, start.Add(day * time.Duration(monthDays(y, m)))
	}
	return time.Time{}, time.Time{}
}

// day is one of UTC, which has no others.
const day = 24 * time.Hour

func monthDays(year int, m time.Month) int {
	switch m {
	case time.February:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	case time.April, time.June, time.September, time.November:
		return 30
	}
	return 31
}

func billingSpan(now, anchor time.Time) (start, end time.Time) {
	n := (now.Year()-anchor.Year())*12 + int(now.Month()) - int(anchor.Month())
	start = addMonths(anchor, n)
	if start.After(now) { // the anchor's day or time of day is still to come this month
		n--
		start = addMonths(anchor, n)
	}
	return start, addMonths(anchor, n+1)
}

// addMonths is the anchor n calendar months on, its day clamped to the month's last.
func addMonths(anchor time.Time, n int) time.Time {
	y, m, d := anchor.Date()
	first := time.Date(y, m+time.Month(n), 1, 0, 0, 0, 0, time.UTC)
	last := first.AddDate(0, 1, -1).Day()
	hh, mm, ss := anchor.Clock()
	return time.Date(first.Year(), first.Month(), min(d, last), hh, mm, ss, 0, time.UTC)
}

// Periods is a set of periods.
type Periods uint8

// With is the set with p in it.
func (ps Periods) With(p Period) Periods { return ps | 1<<p }

// Has reports whether p is in the set.
func (ps Periods) Has(p Period) bool { return ps&(1<<p) != 0 }
