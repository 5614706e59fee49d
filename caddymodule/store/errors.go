package store

import (
	"errors"
	"fmt"
)

// Outcomes of the services that a caller answers differently.
var (
	// ErrPlanNotFound: no plan of that name (404).
	ErrPlanNotFound = errors.New("plan not found")
	// ErrNoDefaultPlan: the configured plan does not exist and none has is_default.
	ErrNoDefaultPlan = errors.New("no default plan")
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
