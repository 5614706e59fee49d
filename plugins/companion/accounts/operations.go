package accounts

import (
	"context"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/quotagate/quotagate/caddymodule/gate"
	"github.com/quotagate/quotagate/caddymodule/store"
	"github.com/quotagate/quotagate/plugins/companion/api"
	"go.uber.org/zap"
)

// service is what the operations work with.
type service struct {
	store func() (*store.Store, error)
	gate  func() (*gate.Gate, error)
	log   *zap.Logger
}

// output is an answer with a body.
type output[T any] struct{ Body T }

// register adds the operations to the API.
func register(a huma.API, s *service) {
	huma.Register(a, huma.Operation{
		OperationID: "get-my-subscription", Method: http.MethodGet, Path: "/v1/subscription/me",
		Summary: "The caller's subscription and plan", Tags: []string{"subscription"},
		Security: api.Authenticated(), Errors: []int{http.StatusUnauthorized, http.StatusForbidden},
	}, serve(s, s.subscription))
	huma.Register(a, huma.Operation{
		OperationID: "get-my-usage", Method: http.MethodGet, Path: "/v1/subscription/usage",
		Summary: "What the caller has used, and of how much", Tags: []string{"subscription"},
		Security: api.Authenticated(), Errors: []int{http.StatusUnauthorized, http.StatusForbidden},
	}, serve(s, s.usage))
	huma.Register(a, huma.Operation{
		OperationID: "list-plans", Method: http.MethodGet, Path: "/v1/subscription/plans",
		Summary: "The plans that can be chosen, by tier", Tags: []string{"subscription"},
	}, serve(s, s.plans))
}

// serve turns a method into an operation. A fault is logged and told to the
// client as a 503 without its reason: the records or the counters are down.
func serve[T any](s *service, f func(context.Context, *store.Store) (T, error)) func(context.Context, *struct{}) (*output[T], error) {
	return func(ctx context.Context, _ *struct{}) (*output[T], error) {
		st, err := s.store()
		if err == nil {
			var body T
			if body, err = f(ctx, st); err == nil {
				return &output[T]{body}, nil
			}
		}
		if answer, ok := err.(*api.Error); ok { //nolint:errorlint // made by the operation itself, never wrapped
			return nil, answer
		}
		s.log.Error("answering failed", zap.Error(err))
		return nil, api.NewError(http.StatusServiceUnavailable, "This information is not available at the moment")
	}
}

// subscription answers GET /v1/subscription/me.
func (s *service) subscription(ctx context.Context, st *store.Store) (mine, error) {
	c, err := api.Caller(ctx)
	if err != nil {
		return mine{}, err
	}
	state, err := st.AccountState(ctx, c.Entitlement.Account)
	if err != nil {
		return mine{}, fmt.Errorf("loading the subscription: %w", err)
	}
	return mine{Subscription: subscriptionOf(state.Subscription), Plan: planOf(state.Plan)}, nil
}

// plans answers GET /v1/subscription/plans.
func (s *service) plans(ctx context.Context, st *store.Store) (planList, error) {
	ps, err := st.ListPlans(ctx, store.PlanFilter{Public: true})
	if err != nil {
		return planList{}, err
	}
	list := planList{Plans: make([]plan, len(ps))}
	for i, p := range ps {
		list.Plans[i] = planOf(p)
	}
	return list, nil
}
