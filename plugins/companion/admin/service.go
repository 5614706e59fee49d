package admin

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
	"github.com/quotagate/quotagate/plugins/companion/api"
	"go.uber.org/zap"
)

// service is what the operations work with.
type service struct {
	store func() (*store.Companion, error)
	// bootstraps reports whether the config makes a caller an admin; lists, whether
	// a user's id or address stands there.
	bootstraps func(*quota.Principal) bool
	lists      func(userID, email string) bool
	// peek asks the counters, as gate.Gate.Peek does.
	peek func(ctx context.Context, account quota.Subject, cs []quota.Charge, d *quota.Decision) error
	// reset empties the rate windows of a subject, as gate.Refiller.Reset does.
	reset func(ctx context.Context, subject quota.Subject, scopes []string) ([]string, error)
	// learn writes the callers into the records whom this process has seen since
	// it last did, and what it has counted: without a host's table they are the directory.
	// A fault is reported already, and tried again.
	learn func(ctx context.Context) error
	// process is what the records call this process; empty: it does not count.
	process func() string
	// local reports whether the counters are those of this process alone.
	local func() bool
	// hostKeys removes keys of the backend's own Redis, and answers which there
	// were; nil: none is configured.
	hostKeys func(ctx context.Context, keys []string) ([]int, error)
	// seal and unseal keep the e-mail addresses of deleted users; nil: no key.
	seal   func(userID, email string) string
	unseal func(userID, sealed string) (string, error)
	// nudge has the worker of billing look at its queue; nil: there is none.
	nudge func()
	now   func() time.Time
	log   *zap.Logger
}

// mount adds the operations to a server, for superadmins only.
func mount(server *api.Server, s *service) {
	server.API().UseMiddleware(s.superadminsOnly(server))
	server.Idempotent(s.store)
	register(server.API(), s)
}

// Describe adds the operations to an API that is only looked at.
func Describe(a huma.API) { register(a, &service{}) }

// superadminsOnly lets nobody else reach an operation. Who was let in by a key, or
// as somebody else, is not there in person.
func (s *service) superadminsOnly(server *api.Server) func(ctx huma.Context, next func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		_, w := humago.Unwrap(ctx)
		allowed, err := s.admits(ctx.Context())
		switch {
		case err != nil:
			s.fault(ctx.Context(), ctx.Operation().OperationID, err)
			api.Write(w, api.Unavailable())
		case !allowed:
			server.Deny(ctx, quota.CodeAdmin)
		default:
			w.Header().Set("X-Request-Id", api.Actor(ctx.Context()).RequestID)
			next(ctx)
		}
	}
}

// admits reports whether the caller is an admin in person.
func (s *service) admits(ctx context.Context) (bool, error) {
	c, err := api.Caller(ctx)
	if err != nil {
		return false, err
	}
	p := c.Principal
	if p.KeyID != "" || p.Impersonator != "" || p.Subject.Kind() != "user" {
		return false, nil
	}
	return s.isAdmin(ctx, p)
}

// isAdmin asks the config first: a bootstrap admin is one while the table cannot
// be read.
func (s *service) isAdmin(ctx context.Context, p *quota.Principal) (bool, error) {
	if s.bootstraps(p) {
		return true, nil
	}
	st, err := s.store()
	if err != nil {
		return false, err
	}
	return st.IsAdmin(ctx, p.Subject.ID())
}

// answer is an answer with a body.
type answer[T any] struct {
	// ETag is that of what was read or changed; empty: it has no versions.
	ETag string `header:"ETag"`
	Body T
}

// add registers an operation. f answers the body, and the ETag of what has
// versions; its errors are the store's, which failure turns into answers.
func add[I, O any](a huma.API, s *service, op huma.Operation, f func(context.Context, *store.Companion, *I) (O, string, error)) {
	op = described(op)
	id := op.OperationID
	huma.Register(a, op, func(ctx context.Context, in *I) (*answer[O], error) {
		st, err := s.store()
		if err == nil {
			var body O
			var tag string
			body, tag, err = f(ctx, st, in)
			if errors.Is(err, store.ErrUserNotFound) || errors.Is(err, store.ErrAccountNotFound) {
				_ = s.learn(ctx) // it may have asked for the first time a moment ago
				body, tag, err = f(ctx, st, in)
			}
			if err == nil {
				return &answer[O]{tag, body}, nil
			}
		}
		return nil, s.failure(ctx, id, err)
	})
}

// export registers an operation that answers T as JSON, or a table. What the store
// refuses stands in its query.
func export[T, I any](a huma.API, s *service, op huma.Operation, f func(context.Context, *store.Companion, *I) (*huma.StreamResponse, error)) {
	op = api.Exports[T](a, described(op, http.StatusUnprocessableEntity))
	id := op.OperationID
	huma.Register(a, op, func(ctx context.Context, in *I) (*huma.StreamResponse, error) {
		st, err := s.store()
		if err == nil {
			var answer *huma.StreamResponse
			if answer, err = f(ctx, st, in); err == nil {
				return answer, nil
			}
		}
		return nil, s.failure(ctx, id, api.QueryError(err))
	})
}

// described is an operation with what all of them have.
func described(op huma.Operation, errors ...int) huma.Operation {
	op.Tags = append(op.Tags, "admin")
	op.Security = api.Authenticated()
	op.Errors = append(op.Errors, append(errors, http.StatusUnauthorized, http.StatusForbidden, http.StatusServiceUnavailable)...)
	return op
}

// failure is the answer to an error: what the caller can mend is said, what has
// failed here is logged.
func (s *service) failure(ctx context.Context, operation string, err error) error {
	var known *api.Error
	var bad *store.InvalidError
	if errors.As(err, &known) {
		return known
	}
	for _, k := range failures() { // first: nobody has an id that cannot be one
		if errors.Is(err, k.err) {
			return k.answer
		}
	}
	if errors.As(err, &bad) {
		return api.Invalid(bad.Field, bad.Err.Error())
	}
	s.fault(ctx, operation, err)
	return api.Unavailable()
}

// known is an outcome of the store and its answer.
type known struct {
	err    error
	answer *api.Error
}

// failures are the outcomes of the store that a caller can do something about.
func failures() []known {
	return []known{
		{store.ErrPlanNotFound, api.NewError(http.StatusNotFound, "Plan not found")},
		{store.ErrPlanExists, api.Refuse(http.StatusConflict, "plan_exists", "Another plan has this name")},
		{store.ErrAccountNotFound, api.NewError(http.StatusNotFound, "Account not found")},
		{store.ErrTooManyOverrides, api.Refuse(http.StatusConflict, "too_many_overrides", "This account has as many overrides as can be: revoke some")},
		{store.ErrLevel, api.Invalid("metric", "is a level: set it with PUT")},
		{store.ErrPlanInactive, api.Refuse(http.StatusConflict, "plan_inactive", "This plan cannot be chosen any more")},
		{store.ErrStripeManaged, api.Refuse(http.StatusConflict, "stripe_managed", "This subscription is managed by Stripe: change it there")},
		{store.ErrOverrideNotFound, api.NewError(http.StatusNotFound, "Override not found")},
		{store.ErrUnknownMetric, api.Invalid("metric", "no plan names this metric")},
		{store.ErrNotLevel, api.InvalidPath("metric", "is counted per period and cannot be set")},
		{store.ErrUserNotFound, api.NewError(http.StatusNotFound, "User not found")},
		{store.ErrSelf, api.Refuse(http.StatusConflict, "cannot_modify_self", "You cannot suspend or delete yourself")},
		{store.ErrLastSuperadmin, api.Refuse(http.StatusConflict, "last_superadmin", "This is the last superadmin")},
		{store.ErrNotAdmin, api.NewError(http.StatusForbidden, "Admin access required")},
		{store.ErrUserDeleted, api.Refuse(http.StatusConflict, "user_deleted", "This user is deleted: restore it first")},
		{store.ErrChanged, api.PreconditionFailed()},
	}
}

// fault logs what has failed here.
func (s *service) fault(ctx context.Context, operation string, err error) {
	fields := []zap.Field{
		zap.String("operation", operation), zap.String("request_id", api.Actor(ctx).RequestID), zap.Error(err),
	}
	if ctx.Err() != nil {
		s.log.Debug("the client left before it was answered", fields...)
		return
	}
	s.log.Error("answering failed", fields...)
}
