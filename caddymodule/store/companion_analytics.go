package store

import (
	"context"
	"fmt"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store/column"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// Granularity is how finely charts are drawn. Buckets are UTC's hours and days.
type Granularity string

// The granularities: each has a table of its own.
const (
	ByHour Granularity = "hour"
	ByDay  Granularity = "day"
)

// MaxPoints bounds a series: about six weeks by the hour, almost three years by the day.
const MaxPoints = 1000

func (g Granularity) bucket() (time.Duration, error) {
	switch g {
	case ByHour:
		return time.Hour, nil
	case ByDay:
		return 24 * time.Hour, nil
	}
	return 0, invalid("granularity", "%q is neither %q nor %q", g, ByHour, ByDay)
}

// Range is a span of the charts. It is widened to whole buckets.
type Range struct {
	From, To    time.Time // To is exclusive
	Granularity Granularity
}

// widen is the range in whole buckets, and how many there are.
func (r Range) widen() (from, to time.Time, step time.Duration, err error) {
	step, err = r.Granularity.bucket()
	if err != nil {
		return from, to, 0, err
	}
	// Whole hours and days since year 1 are those of UTC.
	from, to = r.From.UTC().Truncate(step), r.To.UTC()
	if whole := to.Truncate(step); !whole.Equal(to) {
		to = whole.Add(step)
	}
	switch {
	case from.Year() < 1970 || to.Year() > 9999:
		return from, to, 0, invalid("from", "want a time since 1970")
	case !to.After(from):
		return from, to, 0, invalid("to", "is not after from")
	case to.Sub(from)/step > MaxPoints:
		return from, to, 0, invalid("from", "the range holds more than %d points of an %s: ask for a shorter one, or by another granularity", MaxPoints, r.Granularity)
	}
	return from, to, step, nil
}

// UsagePoint is one bucket of a series.
type UsagePoint struct {
	At       time.Time // the bucket's start
	Requests int64     // that concerned the metric or scope, blocked ones included
	Used     int64     // what those that passed were charged, less what was given back
	Blocked  int64     // requests that were denied, by whatever rule
}

// UsageHistory is what an account has used of a metric, every bucket of the
// range, also those in which nothing happened. It is drawn from the charts, which are
// written each ten seconds and know neither adjustments nor measured levels.
// It answers ErrUnknownMetric for a metric that no plan names.
func (s *Companion) UsageHistory(ctx context.Context, account quota.Subject, metric string, r Range) ([]UsagePoint, error) {
	if err := checkAccount(account); err != nil {
		return nil, err
	}
	return s.series(ctx, r, func(q *sqlgen.Queries, from, to column.Time) ([]UsagePoint, error) {
		c, err := s.loadCatalogue(ctx, q)
		if err != nil {
			return nil, err
		}
		if !(&view{catalogue: c}).knows(metric) {
			return nil, fmt.Errorf("%w: %q", ErrUnknownMetric, metric)
		}
		return accountPoints(ctx, q, account.ID(), metric, r.Granularity, from, to)
	})
}

// UsageSeries is UsageHistory for operators: of any word of the charts (a scope, a
// metric, a rule), of one account, or of all where the id is empty.
func (s *Companion) UsageSeries(ctx context.Context, accountID, scope string, r Range) ([]UsagePoint, error) {
	if !quota.ValidName(scope) {
		return nil, invalid("metric", "%q is not the name of a metric, scope or rule", scope)
	}
	if accountID != "" && checkID(accountID) != nil {
		return nil, invalid("account_id", "is too long, or no text")
	}
	return s.series(ctx, r, func(q *sqlgen.Queries, from, to column.Time) ([]UsagePoint, error) {
		if accountID != "" {
			return accountPoints(ctx, q, accountID, scope, r.Granularity, from, to)
		}
		return allPoints(ctx, q, scope, r.Granularity, from, to)
	})
}

func (s *Companion) series(ctx context.Context, r Range, load func(q *sqlgen.Queries, from, to column.Time) ([]UsagePoint, error)) ([]UsagePoint, error) {
	from, to, step, err := r.widen()
	if err != nil {
		return nil, err
	}
	var found []UsagePoint
	err = s.read(ctx, func(q *sqlgen.Queries) (err error) {
		found, err = load(q, column.At(from), column.At(to))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("loading charts: %w", err)
	}
	points := make([]UsagePoint, 0, to.Sub(from)/step)
	for at := from; at.Before(to); at = at.Add(step) {
		points = append(points, UsagePoint{At: at})
	}
	for _, p := range found {
		if i := int(p.At.Sub(from) / step); i >= 0 && i < len(points) && points[i].At.Equal(p.At) {
			points[i] = p
		}
	}
	return points, nil
}

func accountPoints(ctx context.Context, q *sqlgen.Queries, id, scope string, g Granularity, from, to column.Time) ([]UsagePoint, error) {
	p := sqlgen.AccountHoursParams{AccountID: id, Scope: scope, Since: from, Until: to}
	if g == ByDay {
		rows, err := q.AccountDays(ctx, sqlgen.AccountDaysParams(p))
		return pointsOf(rows, err, func(r sqlgen.AccountDaysRow) UsagePoint {
			return UsagePoint{r.Bucket.Time, r.Requests, r.Used, r.Blocked}
		})
	}
	rows, err := q.AccountHours(ctx, p)
	return pointsOf(rows, err, func(r sqlgen.AccountHoursRow) UsagePoint {
		return UsagePoint{r.Bucket.Time, r.Requests, r.Used, r.Blocked}
	})
}

func allPoints(ctx context.Context, q *sqlgen.Queries, scope string, g Granularity, from, to column.Time) ([]UsagePoint, error) {
	p := sqlgen.AllHoursParams{Scope: scope, Since: from, Until: to}
	if g == ByDay {
		rows, err := q.AllDays(ctx, sqlgen.AllDaysParams(p))
		return pointsOf(rows, err, func(r sqlgen.AllDaysRow) UsagePoint {
			return UsagePoint{r.Bucket.Time, r.Requests, r.Used, r.Blocked}
		})
	}
	rows, err := q.AllHours(ctx, p)
	return pointsOf(rows, err, func(r sqlgen.AllHoursRow) UsagePoint {
		return UsagePoint{r.Bucket.Time, r.Requests, r.Used, r.Blocked}
	})
}

func pointsOf[T any](rows []T, err error, point func(T) UsagePoint) ([]UsagePoint, error) {
	points := make([]UsagePoint, len(rows))
	for i, r := range rows {
		points[i] = point(r)
	}
	return points, err
}
