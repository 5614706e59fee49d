package accounts

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
	"github.com/quotagate/quotagate/plugins/companion/api"
	"go.uber.org/zap"
)

// service is what the operations work with.
type service struct {
	store func() (*store.Companion, error)
	// peek asks the counters, as gate.Gate.Peek does.
	peek func(ctx context.Context, account quota.Subject, cs []quota.Charge, d *quota.Decision) error
	now  func() time.Time
	log  *zap.Logger
}

// output is an answer with a body.
type output[T any] struct{ Body T }

// Describe adds the operations to an API that is only looked at.
func Describe(a huma.API) { register(a, &service{}) }

// register adds the operations to the API.
func register(a huma.API, s *service) {
	huma.Register(a, huma.Operation{
		OperationID: "get-my-subscription", Method: http.MethodGet, Path: "/v1/subscription/me",
		Summary: "The caller's subscription and plan in effect", Tags: []string{"subscription"},
		Description: "The plan is the one in effect now: the default plan without a subscription, " +
			"and after a trial, a paid period or a grace has ended.",
		Security: api.Authenticated(), Errors: authenticatedErrors(),
	}, serve(s, "get-my-subscription", s.subscription))
	huma.Register(a, huma.Operation{
		OperationID: "get-my-usage", Method: http.MethodGet, Path: "/v1/subscription/usage",
		Summary: "What the caller has used, and of how much", Tags: []string{"subscription"},
		Description: "What was used is known to the last admitted request. `quotas` compares like with like, each in its " +
			"metric's own unit and period; `usage` and `limits` are the same in the units that people read.",
		Security: api.Authenticated(), Errors: authenticatedErrors(),
	}, serve(s, "get-my-usage", s.usage))
	huma.Register(a, huma.Operation{
		OperationID: "list-plans", Method: http.MethodGet, Path: "/v1/subscription/plans",
		Summary: "The plans that can be chosen, the smallest first", Tags: []string{"subscription"},
		Description: "Open to anybody. A credential is looked at only to refuse suspended and deleted users.",
		Errors:      []int{http.StatusBadRequest, http.StatusForbidden, http.StatusServiceUnavailable},
	}, serve(s, "list-plans", s.plans))
	registerHistory(a, s)
}

func authenticatedErrors() []int {
	return []int{http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusServiceUnavailable}
}

// serve turns a method into an operation. A fault is logged and told to the
// client as a 503 without its reason: the records or the counters are down.
func serve[T any](s *service, id string, f func(context.Context, *store.Companion) (T, error)) func(context.Context, *struct{}) (*output[T], error) {
	return func(ctx context.Context, _ *struct{}) (*output[T], error) {
		st, err := s.store()
		if err == nil {
			var body T
			if body, err = f(ctx, st); err == nil {
				return &output[T]{body}, nil
			}
		}
		return nil, s.failed(ctx, id, err)
	}
}

// failed logs why an operation has no answer.
func (s *service) failed(ctx context.Context, id string, err error) error {
	if ctx.Err() != nil {
		s.log.Debug("the client left before it was answered", zap.String("operation", id), zap.Error(err))
	} else {
		s.log.Error("answering failed", zap.String("operation", id), zap.Error(err))
	}
	return api.Unavailable()
}

// subscription answers GET /v1/subscription/me.
func (s *service) subscription(ctx context.Context, st *store.Companion) (subscriptionAnswer, error) {
	c, err := api.Caller(ctx)
	if err != nil {
		return subscriptionAnswer{}, err
	}
	state, err := st.AccountState(ctx, c.Entitlement.Account)
	if err != nil {
		return subscriptionAnswer{}, fmt.Errorf("loading the subscription: %w", err)
	}
	return subscriptionAnswer{Subscription: SubscriptionOf(state.Subscription), Plan: planOf(state.Plan)}, nil
}

// plans answers GET /v1/subscription/plans.
func (s *service) plans(ctx context.Context, st *store.Companion) (planList, error) {
	ps, err := st.ListPlans(ctx, store.PlanFilter{Public: true})
	if err != nil {
		return planList{}, fmt.Errorf("loading the plans: %w", err)
	}
	list := planList{Plans: make([]plan, len(ps))}
	for i, p := range ps {
		list.Plans[i] = planOf(p)
	}
	return list, nil
}
