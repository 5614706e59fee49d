package admin

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/quotagate/quotagate/caddymodule/store"
	"github.com/quotagate/quotagate/plugins/companion/api"
)

// Charted is what of the charts is asked for.
type Charted struct {
	Metric string `query:"metric" default:"api_calls" maxLength:"64" doc:"A metric, or the first scope or the name of a rule."`
	api.Span
	api.Format
}

type seriesInput struct {
	Charted
	Account string `query:"account_id" maxLength:"255" doc:"Of one account. Default: of all."`
}

// usageSeries is the answer of GET /v1/admin/analytics/series.
type usageSeries struct {
	Series []seriesPoint `json:"series" nullable:"false" doc:"Every bucket of the range."`
}

type seriesPoint struct {
	T        time.Time `json:"t"`
	Requests int64     `json:"requests" minimum:"0" doc:"Blocked ones included."`
	Used     int64     `json:"used" minimum:"0"`
	Blocked  int64     `json:"blocked" minimum:"0"`
}

type topInput struct {
	Charted
	By    string `query:"by" enum:"used,blocked,requests" default:"used"`
	Limit int    `query:"limit" minimum:"1" maximum:"200" default:"20"`
}

// topAccounts is the answer of GET /v1/admin/analytics/top.
type topAccounts struct {
	Accounts []topAccount `json:"accounts" nullable:"false" doc:"The largest first."`
}

type topAccount struct {
	AccountID string  `json:"account_id"`
	Kind      string  `json:"kind" enum:"user,org"`
	Email     *string `json:"email"`
	Requests  int64   `json:"requests"`
	Used      int64   `json:"used"`
	Blocked   int64   `json:"blocked"`
}

type exportInput struct {
	Metric  string `query:"metric" maxLength:"64" doc:"Default: everything in the charts."`
	Account string `query:"account_id" maxLength:"255" doc:"Of one account. Default: of all."`
	Limit   int    `query:"limit" minimum:"1" maximum:"10000" default:"10000"`
	Cursor  string `query:"cursor" maxLength:"2000" doc:"The next cursor of the page before."`
	api.Span
	Format string `query:"format" enum:"csv,json" default:"csv"`
}

// chartRows is the answer of GET /v1/admin/analytics/export as JSON.
type chartRows struct {
	Rows       []chartRow `json:"rows" nullable:"false"`
	NextCursor *string    `json:"next_cursor" doc:"null: this was the last page."`
}

type chartRow struct {
	T           time.Time `json:"t"`
	AccountID   string    `json:"account_id"`
	Metric      string    `json:"metric" doc:"A metric, or the first scope or the name of a rule."`
	Decision    string    `json:"decision" doc:"admitted, shadow_denied, or the code of the denial."`
	StatusClass int64     `json:"status_class" doc:"2 for 2xx; 0 where none was sent."`
	Requests    int64     `json:"requests"`
	Cost        int64     `json:"cost"`
}

func registerAnalytics(a huma.API, s *service) {
	const lag = "From the charts, which are about ten seconds behind. A request stands in them under each metric that it spends, and under the word of each rule."
	export[usageSeries](a, s, huma.Operation{
		OperationID: "get-analytics-series", Method: http.MethodGet, Path: "/v1/admin/analytics/series", Summary: "Usage over time", Description: lag,
	}, s.series)
	export[topAccounts](a, s, huma.Operation{
		OperationID: "get-analytics-top", Method: http.MethodGet, Path: "/v1/admin/analytics/top", Summary: "The accounts that used most",
		Description: lag + " Days are counted whole.",
	}, s.top)
	export[chartRows](a, s, huma.Operation{
		OperationID: "export-analytics", Method: http.MethodGet, Path: "/v1/admin/analytics/export", Summary: "The rows behind the charts",
		Description: lag + " As CSV the cursor of the next page is in X-Next-Cursor.",
	}, s.exportRows)
}

func (s *service) series(ctx context.Context, st *store.Companion, in *seriesInput) (*huma.StreamResponse, error) {
	r, err := in.Range(s.now())
	if err != nil {
		return nil, err
	}
	points, err := st.UsageSeries(ctx, in.Account, in.Metric, r)
	if err != nil {
		return nil, err
	}
	if in.CSV() {
		return api.Table{
			Name: "usage-series", Columns: []string{"t", "requests", "used", "blocked"},
			Rows: api.Slice(points, func(p store.UsagePoint) []string {
				return []string{p.At.UTC().Format(time.RFC3339), number(p.Requests), number(p.Used), number(p.Blocked)}
			}),
		}.Answer(), nil
	}
	out := usageSeries{Series: make([]seriesPoint, len(points))}
	for i, p := range points {
		out.Series[i] = seriesPoint{p.At.UTC(), p.Requests, p.Used, p.Blocked}
	}
	return api.JSON(out)
}

func (s *service) top(ctx context.Context, st *store.Companion, in *topInput) (*huma.StreamResponse, error) {
	r, err := in.Range(s.now())
	if err != nil {
		return nil, err
	}
	ranked, err := st.TopAccounts(ctx, in.Metric, in.By, r, in.Limit)
	if err != nil {
		return nil, err
	}
	if in.CSV() {
		return api.Table{
			Name: "usage-top", Columns: []string{"account_id", "kind", "email", "requests", "used", "blocked"},
			Rows: api.Slice(ranked, func(a store.Ranked) []string {
				return []string{a.Account.ID(), a.Account.Kind(), a.Email, number(a.Requests), number(a.Used), number(a.Blocked)}
			}),
		}.Answer(), nil
	}
	out := topAccounts{Accounts: make([]topAccount, len(ranked))}
	for i, a := range ranked {
		out.Accounts[i] = topAccount{a.Account.ID(), a.Account.Kind(), orNull(a.Email), a.Requests, a.Used, a.Blocked}
	}
	return api.JSON(out)
}

func (s *service) exportRows(ctx context.Context, st *store.Companion, in *exportInput) (*huma.StreamResponse, error) {
	r, err := in.Range(s.now())
	if err != nil {
		return nil, err
	}
	after, err := readChartCursor(in.Cursor)
	if err != nil {
		return nil, err
	}
	f := store.ChartFilter{Range: r, AccountID: in.Account, Scope: in.Metric}
	rows, err := st.ChartRows(ctx, f, after, in.Limit+1) // one more shows whether there is a next page
	if err != nil {
		return nil, err
	}
	next := ""
	if len(rows) > in.Limit {
		rows = rows[:in.Limit]
		if next, err = writeChartCursor(rows[in.Limit-1]); err != nil {
			return nil, err
		}
	}
	if in.Format == "csv" {
		return api.Table{
			Name: "usage", Columns: []string{"t", "account_id", "metric", "decision", "status_class", "requests", "cost"}, Next: next,
			Rows: api.Slice(rows, func(r store.ChartRow) []string {
				return []string{
					r.Bucket.UTC().Format(time.RFC3339), r.AccountID, r.Scope, r.Decision, number(r.StatusClass), number(r.Requests), number(r.Cost),
				}
			}),
		}.Answer(), nil
	}
	out := chartRows{Rows: make([]chartRow, len(rows)), NextCursor: orNull(next)}
	for i, r := range rows {
		out.Rows[i] = chartRow{r.Bucket.UTC(), r.AccountID, r.Scope, r.Decision, r.StatusClass, r.Requests, r.Cost}
	}
	return api.JSON(out)
}

// writeChartCursor is where a page ends: the key of its last row.
func writeChartCursor(r store.ChartRow) (string, error) {
	r.Requests, r.Cost = 0, 0
	b, err := json.Marshal(r)
	return base64.RawURLEncoding.EncodeToString(b), err
}

func readChartCursor(text string) (*store.ChartRow, error) {
	if text == "" {
		return nil, nil
	}
	var r store.ChartRow
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		return nil, api.InvalidQuery("cursor", "is not one that this list has given: begin anew without it")
	}
	return &r, nil
}

func number(n int64) string { return strconv.FormatInt(n, 10) }
