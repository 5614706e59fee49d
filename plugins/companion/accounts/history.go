package accounts

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/quotagate/quotagate/caddymodule/store"
	"github.com/quotagate/quotagate/plugins/companion/api"
)

// historyInput is what GET /v1/usage/history is asked for.
type historyInput struct {
	Metric string `query:"metric" default:"api_calls" minLength:"1" maxLength:"64" example:"jobs" doc:"A metric that a plan names."`
	api.Span
	api.Format
}

// historyAnswer is the answer of /v1/usage/history.
type historyAnswer struct {
	Series []historyPoint `json:"series" nullable:"false" doc:"Every bucket of the range, the first first, also those in which nothing happened."`
}

type historyPoint struct {
	T       time.Time `json:"t" doc:"Where the hour or the day begins, in UTC."`
	Used    int64     `json:"used" minimum:"0" doc:"What admitted requests have used, in the metric's own unit, less what was given back to them."`
	Blocked int64     `json:"blocked" minimum:"0" doc:"Requests that would have used it and were denied, for whatever reason."`
}

func registerHistory(a huma.API, s *service) {
	op := api.Exports[historyAnswer](a, huma.Operation{
		OperationID: "get-my-usage-history", Method: http.MethodGet, Path: "/v1/usage/history",
		Summary: "What the caller has used over time", Tags: []string{"subscription"},
		Description: "For charts: known to about ten seconds ago, and without what an admin has added, taken away or measured. " +
			"What counts is in /v1/subscription/usage.",
		Security: api.Authenticated(), Errors: append(authenticatedErrors(), http.StatusUnprocessableEntity),
	})
	huma.Register(a, op, func(ctx context.Context, in *historyInput) (*huma.StreamResponse, error) {
		st, err := s.store()
		if err == nil {
			var answer *huma.StreamResponse
			if answer, err = s.history(ctx, st, in); err == nil {
				return answer, nil
			}
		}
		if refused := (*api.Error)(nil); errors.As(err, &refused) {
			return nil, refused
		}
		return nil, s.failed(ctx, op.OperationID, err)
	})
}

// history answers GET /v1/usage/history from the charts.
func (s *service) history(ctx context.Context, st *store.Companion, in *historyInput) (*huma.StreamResponse, error) {
	c, err := api.Caller(ctx)
	if err != nil {
		return nil, err
	}
	r, err := in.Range(s.now())
	if err != nil {
		return nil, err
	}
	points, err := st.UsageHistory(ctx, c.Entitlement.Account, in.Metric, r)
	if errors.Is(err, store.ErrUnknownMetric) {
		return nil, api.InvalidQuery("metric", "No plan names this metric")
	}
	if err != nil {
		return nil, api.QueryError(err)
	}
	if !in.CSV() {
		out := historyAnswer{Series: make([]historyPoint, len(points))}
		for i, p := range points {
			out.Series[i] = historyPoint{T: p.At.UTC(), Used: p.Used, Blocked: p.Blocked}
		}
		return api.JSON(out)
	}
	return api.Table{
		Name: "usage-history", Columns: []string{"t", "used", "blocked"},
		Rows: api.Slice(points, func(p store.UsagePoint) []string {
			return []string{p.At.UTC().Format(time.RFC3339), strconv.FormatInt(p.Used, 10), strconv.FormatInt(p.Blocked, 10)}
		}),
	}.Answer(), nil
}
