package quota

import "time"

// The codes of denials: `detail.error` of the answer and the label of metrics.
const (
	CodeRateLimited        = "rate_limit_exceeded"
	CodeQuotaExceeded      = "quota_exceeded"
	CodeUnauthenticated    = "unauthenticated"
	CodeInvalidToken       = "invalid_token"
	CodeSuspended          = "account_suspended"
	CodeDeleted            = "account_deleted"
	CodeNotOrgMember       = "not_org_member"
	CodeFeature            = "feature_not_available"
	CodeScope              = "insufficient_scope"
	CodeLimiterUnavailable = "limiter_unavailable"
	CodeBadRequest         = "bad_request"
	CodeAdmin              = "admin_required" // by the companion, never by a gateway
)

// Denial is a refusal: an outcome, not a fault. It is an error so that Admit
// can return it, and nothing else.
type Denial struct {
	Status  int // of the answer
	Code    string
	Message string // for people; ends without a stop
	Rule    string // that denied, empty where none did
	// RetryAfter is 0 where waiting does not help.
	RetryAfter time.Duration
	// Scope and Limit describe a rate.
	Scope string
	Limit Limit
	// Metric, Period, Used, ResetAt and Plan describe a quota. ResetAt is zero for a level.
	Metric  string
	Period  Period
	Used    int64
	ResetAt time.Time
	Plan    string
	// Policies are the names of all policies that deny, in the order of the
	// charges: scopes and "<metric>/<period>".
	Policies []string
	// Feature is the one that the plan lacks.
	Feature string
	// ID is a UUIDv7 that also stands in the log.
	ID string
}

func (d *Denial) Error() string { return d.Code + ": " + d.Message }
