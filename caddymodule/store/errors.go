package store

import (
	"errors"
	"fmt"
)

// Outcomes of the services that a caller answers differently.
var (
	// ErrPlanNotFound: no plan of that name (404).
	ErrPlanNotFound = errors.New("plan not found")
	// ErrPlanInactive: the plan is kept for those who have it and cannot be chosen anew (409).
	ErrPlanInactive = errors.New("plan is not active")
	// ErrNoSubscription: the account has no running subscription (404).
	ErrNoSubscription = errors.New("no running subscription")
	// ErrStripeManaged: the subscription is changed at Stripe, not here, unless forced (409).
	ErrStripeManaged = errors.New("subscription is managed by stripe")
	// ErrNoDefaultPlan: the configured plan does not exist and none has is_default.
	ErrNoDefaultPlan = errors.New("no default plan")
	// ErrUnknownMetric: no plan names the metric and it is none of the built-in ones (422).
	ErrUnknownMetric = errors.New("unknown metric")
	// ErrNotLevel: the metric is counted per period and cannot be set (422).
	ErrNotLevel = errors.New("metric is not a level")
	// ErrOverrideNotFound: the account has no such override that is still in force (404).
	ErrOverrideNotFound = errors.New("override not found")
	// ErrSelf: an admin would lock himself out (409).
	ErrSelf = errors.New("admins cannot suspend or delete themselves")
	// ErrLastSuperadmin: nobody could administer any more (409).
	ErrLastSuperadmin = errors.New("this is the last superadmin")
	// ErrNotAdmin: the actor has lost the role meanwhile (403).
	ErrNotAdmin = errors.New("the actor is no admin any more")
	// ErrUserDeleted: the user has to be restored first (409).
	ErrUserDeleted = errors.New("the user is deleted")
	// ErrChanged: it is not what the caller has read any more (412).
	ErrChanged = errors.New("it was changed meanwhile")
)

// InvalidError refuses an argument (422). Field is in the words of the API.
type InvalidError struct {
	Field string
	Err   error
}

func (e *InvalidError) Error() string { return e.Field + ": " + e.Err.Error() }
func (e *InvalidError) Unwrap() error { return e.Err }

func invalid(field, format string, args ...any) error {
	return &InvalidError{Field: field, Err: fmt.Errorf(format, args...)}
}

// RowError names a row that cannot be enforced as written. Nothing is guessed in
// its place: the caller falls back to what it would do without the records.
type RowError struct {
	Table, Row, Field string
	Err               error
}

func (e *RowError) Error() string {
	return fmt.Sprintf("bad row: table %s, row %s, field %s: %v", e.Table, e.Row, e.Field, e.Err)
}

func (e *RowError) Unwrap() error { return e.Err }

// SchemaError says that the schema is missing or older than this build.
type SchemaError struct{ Have, Want int64 }

func (e *SchemaError) Error() string {
	state := fmt.Sprintf("is at version %d, this build needs %d", e.Have, e.Want)
	if e.Have == 0 {
		state = "is missing"
	}
	return "database schema " + state + ": run `caddy quota migrate up`"
}
