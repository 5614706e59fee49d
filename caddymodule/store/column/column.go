// Package column holds the Go types of columns that the two engines deliver
// differently: instants (timestamptz, or text in SQLite) and decimals with two
// places (numeric, or real). Everything else is a type of database/sql.
package column

import (
	"database/sql/driver"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Layout is how an instant stands in SQLite: fixed width, UTC, microseconds, so
// that text order is time order. What SQLite's own datetime() writes sorts with it.
const Layout = "2006-01-02 15:04:05.000000Z"

// layouts are what a hand may have written; without a zone they are UTC.
var layouts = [...]string{
	Layout,
	"2006-01-02 15:04:05.999999999Z07:00",
	"2006-01-02 15:04:05.999999999",
	time.RFC3339Nano,
	"2006-01-02T15:04:05.999999999",
	"2006-01-02 15:04Z07:00",
	"2006-01-02T15:04Z07:00",
	"2006-01-02 15:04",
	"2006-01-02T15:04",
	"2006-01-02",
}

// Time is an instant in UTC to the microsecond. The zero value is NULL.
type Time struct{ time.Time }

// At is t as it is stored: UTC, cut to the microsecond. The zero time is NULL.
func At(t time.Time) Time {
	if t.IsZero() {
		return Time{}
	}
	return Time{t.UTC().Truncate(time.Microsecond)}
}

// Value is the text that both engines take; nil for the zero time.
func (t Time) Value() (driver.Value, error) {
	if t.IsZero() {
		return nil, nil
	}
	return t.UTC().Format(Layout), nil
}

// Scan reads what either engine delivers.
func (t *Time) Scan(src any) error {
	switch v := src.(type) {
	case nil:
		*t = Time{}
		return nil
	case time.Time:
		*t = At(v)
		return nil
	case string:
		return t.parse(v)
	case []byte:
		return t.parse(string(v))
	}
	return fmt.Errorf("reading a time: unexpected %T", src)
}

func (t *Time) parse(s string) error {
	for _, layout := range layouts {
		if at, err := time.Parse(layout, s); err == nil {
			*t = At(at)
			return nil
		}
	}
	return fmt.Errorf("reading a time: %q is not like %q", s, Layout)
}

// Hundredths is a decimal with two places, in hundredths.
type Hundredths int64

// NotHundredths is what Scan makes of a value that is no such decimal (NaN, a
// third place, text): the caller refuses the row and can name it.
const NotHundredths Hundredths = math.MinInt64

// Value is the decimal as text, which both engines take exactly.
func (h Hundredths) Value() (driver.Value, error) {
	if h < 0 {
		return nil, fmt.Errorf("writing a decimal: %d hundredths is negative", int64(h))
	}
	return h.String(), nil
}

// String is the decimal with two places.
func (h Hundredths) String() string {
	if h < 0 {
		return "invalid"
	}
	return fmt.Sprintf("%d.%02d", int64(h)/100, int64(h)%100)
}

// Scan reads what either engine delivers; it never fails, see NotHundredths.
func (h *Hundredths) Scan(src any) error {
	*h = NotHundredths
	switch v := src.(type) {
	case int64:
		if v >= 0 && v <= math.MaxInt64/100 {
			*h = Hundredths(v * 100)
		}
	case float64:
		*h = fromFloat(v)
	case string:
		*h, _ = ParseHundredths(v)
	case []byte:
		*h, _ = ParseHundredths(string(v))
	}
	return nil
}

func fromFloat(v float64) Hundredths {
	scaled := math.Round(v * 100)
	if !(v >= 0 && v <= 1e12) || math.Abs(v*100-scaled) > 1e-6 {
		return NotHundredths
	}
	return Hundredths(scaled)
}

// ParseHundredths reads a decimal without sign or exponent and with at most two
// places other than zero.
func ParseHundredths(s string) (Hundredths, error) {
	whole, places, _ := strings.Cut(s, ".")
	places = strings.TrimRight(places, "0")
	if len(places) > 2 {
		return NotHundredths, fmt.Errorf("%q has more than two decimal places", s)
	}
	places += "00"[len(places):]
	n, err := strconv.ParseUint(whole+places, 10, 53)
	if err != nil || whole == "" {
		return NotHundredths, fmt.Errorf("%q is not a decimal like 1.50", s)
	}
	return Hundredths(n), nil
}
