package api

import (
	"errors"
	"time"

	"github.com/quotagate/quotagate/caddymodule/store"
)

// Span is the part of a chart that is asked for. Embed it in an operation's input.
type Span struct {
	From        string `query:"from" maxLength:"40" example:"2026-03-01T00:00:00Z" doc:"RFC 3339, or a date, which is its first moment in UTC. Default: 24 hours before to, 30 days where granularity is day."`
	To          string `query:"to" maxLength:"40" example:"2026-03-15" doc:"As from, and exclusive; a bucket that it cuts is answered whole. Default: now."`
	Granularity string `query:"granularity" enum:"hour,day" default:"day" doc:"Of at most 1000 points."`
}

// Range is the span; what it does not say ends now. Its errors are answers.
func (s Span) Range(now time.Time) (store.Range, error) {
	r := store.Range{To: now.UTC(), Granularity: store.Granularity(s.Granularity)}
	var err error
	if s.To != "" {
		if r.To, err = Moment("to", s.To); err != nil {
			return r, err
		}
	}
	if s.From == "" {
		if r.From = r.To.AddDate(0, 0, -30); r.Granularity == store.ByHour {
			r.From = r.To.Add(-24 * time.Hour)
		}
		return r, nil
	}
	r.From, err = Moment("from", s.From)
	return r, err
}

// Moment reads a parameter of the query: RFC 3339, or a date. The years
// are 1970 to 9999. Its error is an answer.
func Moment(field, text string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		// Other years are no times to both engines, or do not sort as text.
		if t, err := time.Parse(layout, text); err == nil && t.UTC().Year() >= 1970 && t.UTC().Year() <= 9999 {
			return t.UTC(), nil
		}
	}
	return time.Time{}, InvalidQuery(field, "want a time such as 2026-03-01T15:04:05Z (in a URL, + is written %2B), or a date such as 2026-03-01, since 1970")
}

// QueryError is the answer to a parameter that the store refuses; any other
// error is as it was.
func QueryError(err error) error {
	var bad *store.InvalidError
	if errors.As(err, &bad) {
		return InvalidQuery(bad.Field, bad.Err.Error())
	}
	return err
}
