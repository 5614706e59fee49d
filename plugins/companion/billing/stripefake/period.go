package stripefake

import "time"

// nextBoundary is the first end of a billing period after t, counted from the
// anchor: 31 January, 28 February, 31 March. An anchor in the future is itself a
// boundary.
func nextBoundary(anchor, t int64, interval string, count int64) int64 {
	if anchor > t {
		return anchor
	}
	count = max(1, count)
	var n int64
	switch interval {
	case "day", "week":
		step := day * count
		if interval == "week" {
			step *= 7
		}
		return anchor + ((t-anchor)/step+1)*step
	case "year":
		n = (t - anchor) / (366 * day) / count
	default:
		n = (t - anchor) / (31 * day) / count
	}
	for {
		n++
		if end := boundary(anchor, n*count, interval); end > t {
			return end
		}
	}
}

// boundary is the anchor moved by months or years, the day clamped to the month.
func boundary(anchor, n int64, interval string) int64 {
	a := time.Unix(anchor, 0).UTC()
	year, month := a.Year(), int(a.Month())-1
	if interval == "year" {
		year += int(n)
	} else {
		month += int(n)
		year, month = year+month/12, month%12
	}
	last := time.Date(year, time.Month(month+2), 0, 0, 0, 0, 0, time.UTC).Day()
	return time.Date(year, time.Month(month+1), min(a.Day(), last), a.Hour(), a.Minute(), a.Second(), 0, time.UTC).Unix()
}

// endOf is when a period of the price that starts at t ends.
func (p *price) endOf(t int64) int64 { return nextBoundary(t, t, p.Interval, p.IntervalCount) }
