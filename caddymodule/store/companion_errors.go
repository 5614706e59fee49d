package store

import "errors"

// Outcomes of the services that a caller answers differently.
var (
	// ErrPlanInactive: the plan is kept for those who have it and cannot be chosen anew (409).
	ErrPlanInactive = errors.New("plan is not active")
	// ErrStripeManaged: the subscription is changed at Stripe, not here, unless forced (409).
	ErrStripeManaged = errors.New("subscription is managed by stripe")
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
