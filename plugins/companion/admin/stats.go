package admin

import (
	"context"
	"maps"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"
	"github.com/quotagate/quotagate/caddymodule/store"
)

// platformStats is the answer of GET /v1/admin/stats.
type platformStats struct {
	TotalUsers    int64            `json:"total_users" minimum:"0" doc:"All of the directory, whatever their status."`
	ActiveUsers   int64            `json:"active_users" minimum:"0" doc:"Neither suspended nor deleted, nor anything else to the host."`
	ProUsers      int64            `json:"pro_users" minimum:"0" doc:"Active users on the plan pro."`
	FreeUsers     int64            `json:"free_users" minimum:"0" doc:"Active users on the default plan."`
	ByPlan        map[string]int64 `json:"by_plan" doc:"Active users by the name of the plan in effect; the sum is active_users."`
	Trialing      int64            `json:"trialing" minimum:"0"`
	PastDue       int64            `json:"past_due" minimum:"0"`
	MRRCents      int64            `json:"mrr_cents" minimum:"0" doc:"What running subscriptions bring in a month by their prices, in currency; a year's price is a twelfth."`
	Currency      *string          `json:"currency" doc:"The one that brings in most; null without any subscription that has a price."`
	MRRByCurrency map[string]int64 `json:"mrr_by_currency" doc:"Other currencies are not converted."`
}

func registerStats(a huma.API, s *service) {
	add(a, s, huma.Operation{
		OperationID: "get-stats", Method: http.MethodGet, Path: "/v1/admin/stats", Summary: "How many users there are, and what they pay",
	}, func(ctx context.Context, st *store.Companion, _ *struct{}) (platformStats, string, error) {
		stats, err := st.Stats(ctx)
		if err != nil {
			return platformStats{}, "", err
		}
		return statsOf(stats), "", nil
	})
}

func statsOf(s *store.Stats) platformStats {
	out := platformStats{
		TotalUsers: s.TotalUsers, ActiveUsers: s.ActiveUsers, ProUsers: s.ByPlan["pro"], FreeUsers: s.ByPlan[s.DefaultPlan],
		ByPlan: s.ByPlan, Trialing: s.Trialing, PastDue: s.PastDue, MRRByCurrency: s.Monthly,
	}
	for _, currency := range slices.Sorted(maps.Keys(s.Monthly)) {
		if n := s.Monthly[currency]; out.Currency == nil || n > out.MRRCents {
			out.Currency, out.MRRCents = &currency, n
		}
	}
	return out
}
