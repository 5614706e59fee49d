package admin

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/quotagate/quotagate/caddymodule/store"
	"github.com/quotagate/quotagate/plugins/companion/api"
	"go.uber.org/zap"
)

type adjustUsageInput struct {
	AccountPath
	api.Match
	Body struct {
		Metric string `json:"metric" minLength:"1" maxLength:"64" example:"jobs" doc:"One that is counted by period; a level is set instead."`
		Delta  int64  `json:"delta" doc:"Added to what was used; below 0: given back."`
		Period string `json:"period,omitempty" enum:"day,month,billing" doc:"Only in this period. Default: in all in which the metric is counted."`
		Reason string `json:"reason,omitempty" maxLength:"2000"`
	}
}

// usageAdjustment is the answer of POST .../usage/adjust.
type usageAdjustment struct {
	Metric   string           `json:"metric"`
	Delta    int64            `json:"delta"`
	Adjusted []adjustedPeriod `json:"adjusted" nullable:"false"`
}

type adjustedPeriod struct {
	Period      string    `json:"period"`
	PeriodStart time.Time `json:"period_start"`
	PeriodEnd   time.Time `json:"period_end"`
	Before      int64     `json:"before"`
	After       int64     `json:"after"`
}

type setLevelInput struct {
	AccountPath
	api.Match
	Metric string `path:"metric" maxLength:"64" example:"storage_bytes"`
	Body   struct {
		Value      int64      `json:"value" minimum:"0" doc:"In the metric's own unit."`
		MeasuredAt *time.Time `json:"measured_at,omitempty" doc:"Default: now. What gateways have counted by now is in the value."`
		Reason     string     `json:"reason,omitempty" maxLength:"2000"`
	}
}

// usageLevel is the answer of PUT .../usage/{metric}.
type usageLevel struct {
	Metric     string    `json:"metric"`
	Before     int64     `json:"before"`
	Value      int64     `json:"value"`
	MeasuredAt time.Time `json:"measured_at"`
}

func registerUsage(a huma.API, s *service) {
	add(a, s, huma.Operation{
		OperationID: "adjust-usage", Method: http.MethodPost, Path: "/v1/admin/accounts/{id}/usage/adjust", Summary: "Add to what an account has used, or give back",
		Description: "Exactly, in the periods that contain now; gateways count on from there within 2 seconds. Of the period that the quota is for no more " +
			"can be given back than was used; of another one what is there. Usage has no version: any If-Match but * is refused.",
		Errors: []int{http.StatusNotFound, http.StatusPreconditionFailed, http.StatusUnprocessableEntity},
	}, adjustUsage)
	add(a, s, huma.Operation{
		OperationID: "set-level", Method: http.MethodPut, Path: "/v1/admin/accounts/{id}/usage/{metric}", Summary: "Say what an account holds of a level",
		Description: "Of a metric that never resets, such as storage_bytes. What gateways count from here on is added to it; what they have counted before is waited for, up to 3 seconds. Usage has no version: any If-Match but * is refused.",
		Errors:      []int{http.StatusNotFound, http.StatusPreconditionFailed, http.StatusUnprocessableEntity},
	}, s.setLevel)
}

// noVersion matches the tag of nothing: usage changes with each request.
const noVersion = ""

func adjustUsage(ctx context.Context, st *store.Companion, in *adjustUsageInput) (usageAdjustment, string, error) {
	if !in.Matches(noVersion) {
		return usageAdjustment{}, "", api.PreconditionFailed()
	}
	account, err := in.account(ctx, st)
	if err != nil {
		return usageAdjustment{}, "", err
	}
	b := &in.Body
	done, err := st.AdjustUsage(ctx, api.Actor(ctx), account, store.Adjustment{Metric: b.Metric, Delta: b.Delta, Period: b.Period, Reason: b.Reason})
	out := usageAdjustment{Metric: b.Metric, Delta: b.Delta, Adjusted: make([]adjustedPeriod, len(done))}
	for i, d := range done {
		out.Adjusted[i] = adjustedPeriod{d.Period.String(), d.Start, d.End, d.Before, d.After}
	}
	return out, "", err
}

func (s *service) setLevel(ctx context.Context, st *store.Companion, in *setLevelInput) (usageLevel, string, error) {
	if !in.Matches(noVersion) {
		return usageLevel{}, "", api.PreconditionFailed()
	}
	account, err := in.account(ctx, st)
	if err != nil {
		return usageLevel{}, "", err
	}
	l := store.Level{Account: account, Metric: in.Metric, Value: in.Body.Value, MeasuredAt: s.now()}
	set(&l.MeasuredAt, in.Body.MeasuredAt)
	err = s.learn(ctx)
	if err == nil {
		err = st.AwaitFlushes(ctx, s.process())
	}
	if err != nil { // what is counted and not written would be added to the level
		s.log.Error("what was counted is not all written: a level cannot be measured", zap.Error(err))
		return usageLevel{}, "", api.Unavailable()
	}
	before, err := st.MeasureLevel(ctx, api.Actor(ctx), l, in.Body.Reason)
	if errors.Is(err, store.ErrUnknownMetric) {
		return usageLevel{}, "", api.InvalidPath("metric", "no plan names this metric")
	}
	return usageLevel{in.Metric, before, l.Value, l.MeasuredAt.UTC()}, "", err
}
