package caddymodule

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/quotagate/quotagate/caddymodule/answer"
	"github.com/quotagate/quotagate/caddymodule/gate"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

// Explained says what a gateway would do with a request, and why.
type Explained struct {
	// Judged is false where no `quota` handler sees such a request: it passes.
	Judged bool `json:"judged"`
	// Server is the name of the HTTP server whose handler has judged.
	Server string `json:"server,omitempty"`
	// Host is the one that the request was sent to.
	Host     string `json:"host,omitempty"`
	Admitted bool   `json:"admitted"`
	// Denial is absent where the request is admitted.
	Denial *ExplainedDenial `json:"denial,omitempty"`
	Caller *ExplainedCaller `json:"caller,omitempty"`
	// Rules are the names of the rules that match, in order.
	Rules    []string           `json:"rules,omitempty"`
	Counters []ExplainedCounter `json:"counters,omitempty"`
	// Notes are what else has had a say: a preflight, an outage.
	Notes []string `json:"notes,omitempty"`
}

// ExplainedDenial is why a request would be refused.
type ExplainedDenial struct {
	Status  int    `json:"status"`
	Error   string `json:"error"`
	Message string `json:"message"`
	// Rule is empty where no rule has denied, as for an invalid token.
	Rule string `json:"rule,omitempty"`
	// RetryAfterSeconds is 0 where waiting does not help.
	RetryAfterSeconds int64 `json:"retry_after_seconds,omitempty"`
	// Policies are all that deny: scopes, and <metric>/<period>.
	Policies []string `json:"policies,omitempty"`
}

// ExplainedCaller is who the request would come from.
type ExplainedCaller struct {
	// Subject is empty for an anonymous caller, and Reason says why it is one.
	Subject string `json:"subject,omitempty"`
	Reason  string `json:"reason,omitempty"`
	// Verifier is the module that has claimed the credential.
	Verifier           string `json:"verifier,omitempty"`
	Account            string `json:"account,omitempty"`
	Plan               string `json:"plan,omitempty"`
	SubscriptionStatus string `json:"subscription_status,omitempty"`
	// IP is the prefix that an anonymous caller is counted by.
	IP string `json:"ip"`
}

// explainKey is the context's key of an *explanation.
type explainKey struct{}

// explanation travels with a request that is explained and not sent.
type explanation struct{ answer *Explained }

// Explaining reports whether the request of ctx is one of POST /quota/explain:
// it must change nothing, and its answer is thrown away. A handler of ours that
// would answer it before `quota` does returns at once: then nobody has judged,
// as is so for the real one.
func Explaining(ctx context.Context) bool {
	_, ok := ctx.Value(explainKey{}).(*explanation)
	return ok
}

// explained answers in the place of ServeHTTP where the request is one that is
// explained. The app counts the explanations under way, so that any other
// request pays one atomic load for the question.
func (h *Handler) explained(w http.ResponseWriter, r *http.Request) bool {
	if h.app.runtime.explaining.Load() == 0 {
		return false
	}
	e, ok := r.Context().Value(explainKey{}).(*explanation)
	if !ok {
		return false
	}
	caddyhttp.SetVar(r.Context(), caddyhttp.LogSkipVar, true) // nobody has sent it
	// The request's own context is cancelled, so that no backend is reached.
	r = r.WithContext(context.WithoutCancel(r.Context()))
	a := &Explained{Judged: true, Admitted: true, Host: r.Host}
	if s, ok := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok {
		a.Server = s.Name()
	}
	if err := h.explain(a, w, r); err != nil {
		a.refused(err)
	}
	e.answer = a
	return true
}

// explain does what ServeHTTP does, up to the point where something is taken.
func (h *Handler) explain(a *Explained, w http.ResponseWriter, r *http.Request) error {
	if answer.IsPreflight(r) {
		a.Notes = append(a.Notes, "a CORS preflight passes unidentified and uncounted")
		return nil
	}
	g, err := h.app.Gate()
	if err != nil {
		return err
	}
	x := newExchange(h, w, r)
	x.caller, err = Identify(g, r)
	a.Caller = h.explainCaller(g, r, &x.caller)
	if err != nil {
		return err
	}
	matched, err := h.match(nil, r)
	if err != nil {
		return err
	}
	for _, rule := range matched {
		a.Rules = append(a.Rules, rule.Name)
	}
	applied, err := h.apply(nil, x, r, matched)
	if err != nil {
		return err
	}
	e := g.Explain(r.Context(), x.caller, applied, h.policy())
	if e.Fault != nil {
		a.Notes = append(a.Notes, "the counters, or the usage that they start from, cannot be asked: on_outage decides")
	}
	for i := range e.Charges {
		a.Counters = append(a.Counters, explainCounter(e, i, &x.caller, applied))
	}
	if e.Denial != nil {
		return e.Denial
	}
	return nil
}

// refused notes a denial, or a fault as the status that Caddy gives it.
func (a *Explained) refused(err error) {
	a.Admitted = false
	var d *quota.Denial
	if errors.As(err, &d) {
		a.Denial = &ExplainedDenial{
			Status: d.Status, Error: d.Code, Message: d.Message, Rule: d.Rule,
			RetryAfterSeconds: int64((d.RetryAfter + time.Second - 1) / time.Second), Policies: d.Policies,
		}
		return
	}
	a.Denial = &ExplainedDenial{Status: http.StatusInternalServerError, Error: "fault", Message: err.Error()}
	var he caddyhttp.HandlerError
	if errors.As(err, &he) {
		a.Denial.Status = he.StatusCode
	}
}

func (h *Handler) explainCaller(g *gate.Gate, r *http.Request, c *gate.Caller) *ExplainedCaller {
	e := &ExplainedCaller{IP: string(g.Address(&c.Identity)), Verifier: h.claimedBy(r)}
	switch {
	case c.Invalid != nil:
		e.Reason = c.Invalid.Reason
	case c.Principal == nil || c.Principal.Anonymous():
		e.Reason = "no credential was sent"
	default:
		e.Subject = string(c.Principal.Subject)
	}
	if c.Entitlement != nil {
		e.Account = string(c.Entitlement.Account)
		e.Plan = c.PlanName()
		e.SubscriptionStatus = string(c.Entitlement.Status)
	}
	return e
}

// claimedBy is the module of the first verifier that claims the request's credential.
func (h *Handler) claimedBy(r *http.Request) string {
	for _, v := range h.app.verifiers {
		_, err := v.Verify(r.Context(), r)
		if errors.Is(err, gate.ErrNoCredential) || errors.Is(err, gate.ErrUnclaimed) {
			continue
		}
		if m, ok := v.(caddy.Module); ok {
			return string(m.CaddyModule().ID)
		}
		return ""
	}
	return ""
}
