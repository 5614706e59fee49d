package caddymodule

import (
	"errors"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/google/uuid"
	"github.com/quotagate/quotagate/caddymodule/answer"
	"github.com/quotagate/quotagate/caddymodule/gate"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// The headers by which a backend is told whom the gateway has charged.
const (
	headerUser    = "X-Quota-User"
	headerAccount = "X-Quota-Account"
	headerPlan    = "X-Quota-Plan"
)

// usualRules is how many rules may match a request before room for them is allocated.
const usualRules = 4

// ServeHTTP admits the request, or answers it with a denial.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	strip(r.Header)
	if h.explained(w, r) {
		return nil
	}
	if answer.IsPreflight(r) {
		return h.preflight(newExchange(h, w, r), r, next)
	}
	g, err := h.app.Gate()
	if err != nil {
		return caddyhttp.Error(http.StatusServiceUnavailable, err)
	}
	x := newExchange(h, w, r)
	if x.caller, err = Identify(g, r); err != nil {
		return h.refuse(x, r, err)
	}
	// Only now: a matcher may ask for {quota.plan} or {http.auth.user.id}.
	var room [usualRules]*Rule
	matched, err := h.match(room[:0], r)
	if err != nil {
		return err
	}
	var appliedRoom [usualRules]quota.Applied
	applied, err := h.apply(appliedRoom[:0], x, r, matched)
	if err != nil {
		return h.refuse(x, r, err)
	}
	x.ticket, err = g.Admit(r.Context(), x.caller, applied, h.policy())
	if err != nil {
		return h.refuse(x, r, err)
	}
	x.fields.Build(x.ticket.Charges(), x.ticket.Decision(), x.ticket.Began())
	h.forward(r.Header, &x.caller)
	return h.pass(x, r, next)
}

// preflight passes on what a browser asks before a request: it has no credential,
// and so nobody is charged. It tells the backend no more of a caller than others do.
func (h *Handler) preflight(x *exchange, r *http.Request, next caddyhttp.Handler) error {
	if err := gate.Ambiguous(r); err != nil {
		return h.refuse(x, r, err)
	}
	guardTrailers(r)
	return next.ServeHTTP(x, r)
}

// Identify tells who sent the request and what it may do. A caller that is
// refused whatever it asks for is a *quota.Denial.
func Identify(g *gate.Gate, r *http.Request) (gate.Caller, error) {
	ip, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	if ip == "" {
		ip = r.RemoteAddr
	}
	id, err := g.Identify(r, ip)
	if err != nil {
		return gate.Caller{Identity: id}, err
	}
	return g.Resolve(r.Context(), id, r)
}

// strip drops what only a gateway may say, in any spelling, and an offer to send
// further requests past the gateway (RFC 9110, section 7.8: it may be ignored).
func strip(h http.Header) {
	for name := range h {
		if gate.IsIdentityHeader(name) {
			delete(h, name)
		}
	}
	if offer, ok := h["Upgrade"]; ok && gate.SpeaksHTTP(offer) {
		delete(h, "Upgrade")
	}
}

// forward tells the backend who was charged.
func (h *Handler) forward(to http.Header, c *gate.Caller) {
	if !h.ForwardIdentity || c.Entitlement == nil {
		return
	}
	to[headerUser] = []string{c.Principal.Subject.ID()}
	to[headerAccount] = []string{c.Entitlement.Account.ID()}
	to[headerPlan] = []string{c.PlanName()}
}

func (h *Handler) policy() gate.Policy {
	return gate.Policy{DenyAnonymous: h.Anonymous == deny}
}

// pass sends the request on and settles it, whatever becomes of it: also when
// the handlers panic because the client has gone.
func (h *Handler) pass(x *exchange, r *http.Request, next caddyhttp.Handler) (err error) {
	returned := false
	guardTrailers(r)
	body := countBody(x, r)
	defer func() {
		x.end()
		result := gate.Result{Status: x.status}
		if body != nil {
			result.BodyBytes = body.n.Load()
		}
		if returned {
			result.Status, result.Fate = fate(r, x.status, err)
		}
		h.resolveFrees(x)
		h.metrics.admitted(x)
		x.keepRemaining()
		x.ticket.Settle(r.Context(), result)
		x.ticket = nil
	}()
	err = next.ServeHTTP(x, r)
	returned = true
	if x.status == 0 { // the answer is made elsewhere: of the error, or by net/http
		x.fields.Apply(x.ResponseWriter.Header(), h.headersMode)
	}
	return err
}

// refuse answers with a denial. Another error is a fault and goes to Caddy.
func (h *Handler) refuse(x *exchange, r *http.Request, err error) error {
	var d *quota.Denial
	if !errors.As(err, &d) {
		return err
	}
	if d.ID == "" {
		d.ID = NewDecisionID()
	}
	x.denied = d
	if x.ticket != nil {
		x.fields.Build(x.ticket.Charges(), x.ticket.Decision(), x.ticket.Began())
		x.keepRemaining()
		x.ticket.Discard()
		x.ticket = nil
	}
	h.metrics.denied(x)
	h.logDenial(x, r)
	header := x.ResponseWriter.Header()
	x.fields.Apply(header, h.headersMode)
	h.cors.Apply(header, r)
	if h.Errors == errorsPass {
		answer.SetHeaders(header, d)
		return caddyhttp.HandlerError{StatusCode: d.Status, Err: d, ID: d.ID, Trace: "quota"}
	}
	if werr := answer.Write(x.ResponseWriter, r, d, h.answerOptions()); werr != nil {
		h.log.Debug("the client left before its denial was written", zap.Error(werr))
	}
	return nil
}

// provisionAnswers prepares what denials and headers are made with. Words that
// Validate refuses stay at their zero values, as errorsPass does: they are never used.
func (h *Handler) provisionAnswers() {
	h.headersMode, _ = answer.ParseMode(h.Headers)
	h.errorsStyle, _ = answer.ParseStyle(h.Errors)
	h.metrics = &handlerMetrics{}
	h.denials = gate.Sampled(h.log, time.Second, 20, 100)
}

func (h *Handler) answerOptions() answer.Options {
	return answer.Options{Style: h.errorsStyle, UpgradeURL: h.app.UpgradeURL}
}

// NewDecisionID names a denial: a UUIDv7 (RFC 9562).
func NewDecisionID() string {
	id, err := uuid.NewV7()
	if err != nil {
		id = uuid.New() // the random source has failed once: any unique id will do
	}
	return id.String()
}

// logDenial writes a line, and adds the decision to the access log's.
func (h *Handler) logDenial(x *exchange, r *http.Request) {
	d := x.denied
	if extra, ok := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
		extra.Add(zap.String("quota_decision_id", d.ID))
	}
	c := h.denials.Check(zapcore.InfoLevel, "request denied")
	if c == nil {
		return
	}
	fields := []zap.Field{
		zap.String("decision_id", d.ID), zap.String("error", d.Code), zap.Int("status", d.Status),
		zap.String("rule", d.Rule), zap.String("scope", d.Scope), zap.String("metric", d.Metric),
		zap.String("plan", x.caller.PlanName()),
	}
	if x.caller.Invalid != nil {
		fields = append(fields, zap.String("reason", x.caller.Invalid.Reason))
	}
	if id, ok := caddyhttp.GetVar(r.Context(), "trace_id").(string); ok { // of the directive tracing
		fields = append(fields, zap.String("trace_id", id))
	}
	if h.app.LogSubjects && x.caller.Principal != nil {
		fields = append(fields, zap.String("subject", string(x.caller.Principal.Subject)))
	}
	c.Write(fields...)
}

var (
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
	_ caddy.Provisioner           = (*Handler)(nil)
)
