package store

import (
	"context"
	"fmt"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store/column"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// The ways to rank accounts.
const (
	RankUsed     = "used"
	RankBlocked  = "blocked"
	RankRequests = "requests"
)

// MaxTop bounds a ranking.
const MaxTop = 200

// Ranked is an account in a ranking, with its sums over the range.
type Ranked struct {
	Account                 quota.Subject
	Email                   string // as the account's tokens tell it; may be empty
	Requests, Used, Blocked int64
}

// TopAccounts are the accounts with the largest sums of the charts' word, largest
// first, at most limit; accounts with none are left out. It is drawn by days,
// whatever the range's granularity.
func (s *Companion) TopAccounts(ctx context.Context, scope, by string, r Range, limit int) ([]Ranked, error) {
	switch {
	case !quota.ValidName(scope):
		return nil, invalid("metric", "%q is not the name of a metric, scope or rule", scope)
	case by != RankUsed && by != RankBlocked && by != RankRequests:
		return nil, invalid("by", "%q is none of %s, %s, %s", by, RankUsed, RankBlocked, RankRequests)
	case limit < 1 || limit > MaxTop:
		return nil, invalid("limit", "%d is outside 1..%d", limit, MaxTop)
	}
	r.Granularity = ByDay
	from, to, _, err := r.widen()
	if err != nil {
		return nil, err
	}
	var top []Ranked
	err = s.read(ctx, func(q *sqlgen.Queries) error {
		rows, err := q.TopAccounts(ctx, sqlgen.TopAccountsParams{
			Scope: scope, Since: column.At(from), Until: column.At(to), RankBy: by, MaxRows: int32(limit), // at most MaxTop
		})
		for _, row := range rows {
			a, err := first(q.GetAccount(ctx, row.AccountID))
			if err != nil {
				return err
			}
			ranked := Ranked{Account: quota.UserSubject(row.AccountID), Requests: row.Requests, Used: row.Used, Blocked: row.Blocked}
			if a != nil {
				ranked.Account, ranked.Email = subjectOf(a.Kind, a.ID), a.Email.String
			}
			top = append(top, ranked)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("ranking accounts: %w", err)
	}
	return top, nil
}

// ChartRow is a row of the charts as it is stored.
type ChartRow struct {
	Bucket      time.Time
	AccountID   string
	Scope       string
	Decision    string
	StatusClass int64
	Requests    int64
	Cost        int64
}

// valid reports whether the row's key is one that both engines can compare with.
func (r *ChartRow) valid() bool {
	for _, text := range []string{r.AccountID, r.Scope, r.Decision} {
		if text != "" && checkID(text) != nil {
			return false
		}
	}
	return r.Bucket.Year() >= 1970 && r.Bucket.Year() <= 9999
}

// ChartFilter narrows ChartRows; what is empty narrows nothing.
type ChartFilter struct {
	Range
	AccountID, Scope string
}

// ChartRows are the rows of the charts in the order of their key, at most limit
// of those that come after the given one; nil: from the first. Asked with the last
// row of what it gave, it goes on, whatever was written meanwhile.
func (s *Companion) ChartRows(ctx context.Context, f ChartFilter, after *ChartRow, limit int) ([]ChartRow, error) {
	from, to, _, err := f.widen()
	switch {
	case err != nil:
		return nil, err
	case f.Scope != "" && !quota.ValidName(f.Scope):
		return nil, invalid("metric", "%q is not the name of a metric, scope or rule", f.Scope)
	case f.AccountID != "" && checkID(f.AccountID) != nil:
		return nil, invalid("account_id", "is too long, or no text")
	case after != nil && !after.valid():
		return nil, errCursor()
	}
	p := sqlgen.HourlyRowsParams{
		Since: column.At(from), Until: column.At(to), AfterBucket: column.At(from.Add(-time.Second)),
		OnlyScope: f.Scope, OnlyAccount: f.AccountID, MaxRows: int32(limit), // the caller's own bound
	}
	if after != nil {
		p.AfterBucket, p.AfterAccount, p.AfterScope = column.At(after.Bucket), after.AccountID, after.Scope
		p.AfterDecision, p.AfterClass = after.Decision, after.StatusClass
	}
	var out []ChartRow
	err = s.read(ctx, func(q *sqlgen.Queries) error {
		out = nil
		if f.Granularity == ByDay {
			rows, err := q.DailyRows(ctx, sqlgen.DailyRowsParams(p))
			for _, r := range rows {
				out = append(out, ChartRow{r.Bucket.Time, r.AccountID, r.Scope, r.Decision, r.StatusClass, r.Requests, r.Cost})
			}
			return err
		}
		rows, err := q.HourlyRows(ctx, p)
		for _, r := range rows {
			out = append(out, ChartRow{r.Bucket.Time, r.AccountID, r.Scope, r.Decision, r.StatusClass, r.Requests, r.Cost})
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("loading charts: %w", err)
	}
	return out, nil
}
