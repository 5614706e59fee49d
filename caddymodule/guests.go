// Package caddymodule is Quotagate's host: the Caddy app `quota`, the handler
// `quota` and what belongs to the path of a request. Guests (verifiers,
// counters, records) are Caddy modules of their own in the namespaces
// quota.verifiers, quota.counters and quota.records; this package holds their
// contracts and knows none of them, and no SQL.
package caddymodule

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/quotagate/quotagate/caddymodule/doctor"
	"github.com/quotagate/quotagate/caddymodule/gate"
	"go.uber.org/zap"
)

// RecordsGuest is a module in the namespace quota.records. Provision and
// Validate do no I/O beyond reading secrets: a config is valid while the
// database is down.
type RecordsGuest interface {
	// Key identifies what Open opens: configs with the same key share it, so that
	// a reload neither closes nor opens anything. It holds no secret.
	Key() string
	// Open is called once for a key, when the first config that uses it starts.
	Open(ctx context.Context, env Env) (Records, error)
}

// Records is an open system of record.
type Records interface {
	gate.Loader
	gate.Bus
	gate.UsageStore
	// Ping reports why the records cannot be asked.
	Ping(ctx context.Context) error
	io.Closer
}

// LocalState is implemented by a RecordsGuest that keeps its data on this
// machine: counters may keep their log beside it.
type LocalState interface {
	// StateDir is an absolute folder.
	StateDir() string
}

// CountersGuest is a module in the namespace quota.counters, with the rules of RecordsGuest.
type CountersGuest interface {
	// Key is given the host's folder for state, since counters without one of
	// their own live there.
	Key(stateDir string) string
	Open(ctx context.Context, env Env) (Counters, error)
}

// Counters are open counters.
type Counters interface {
	gate.Engine
	// Ping reports why the counters cannot be asked, or that they work with less than they promise.
	Ping(ctx context.Context) error
	io.Closer
}

// Evicter is implemented by counters in a store that may be set up so that it
// forgets some of them by itself, and with them limits.
type Evicter interface {
	// MayEvict reports whether it is, as far as is known. It does no I/O.
	MayEvict() bool
}

// Env is what the host lends to a guest that is opened. It outlives the config
// that opened it, so nothing in it belongs to one.
type Env struct {
	Log *zap.Logger
	// StateDir is an absolute folder for files of this process.
	StateDir string
	// DefaultPlan is the plan of an account without a subscription; empty: the
	// one that the records mark as default.
	DefaultPlan string
	// Grace is how long a subscription whose payment has failed keeps its plan.
	Grace time.Duration
	// Host names the backends' own tables.
	Host Host
}

// UnknownPlanError is the answer of a RecordsGuest's Open to an Env.DefaultPlan
// that is the name of no plan: with it no account without a subscription would
// have a plan at all.
type UnknownPlanError struct{ Name string }

func (e *UnknownPlanError) Error() string {
	return fmt.Sprintf("default_plan %q is the name of no plan: correct it, or make the plan with caddy quota plans apply", e.Name)
}

// Migrator is implemented by a RecordsGuest with a schema. It needs no open records.
type Migrator interface {
	// Migrate runs one direction, up, down or status, and writes what it did to
	// out, a line for each migration.
	Migrate(ctx context.Context, direction string, out io.Writer) error
}

// Examiner is implemented by a guest that can say how what it depends on is set
// up, for `caddy quota doctor`. It is called on a guest that is not open, while
// another process may have it open, and changes nothing that lasts.
type Examiner interface {
	// Examine never fails: what is in the way is a finding. env is what the guest
	// would be opened with.
	Examine(ctx context.Context, env Env) []doctor.Finding
}

// TokenExaminer is implemented by a verifier that can say what it makes of a token.
type TokenExaminer interface {
	// ExamineToken reports whether the verifier claims the token, and so decides
	// for good; if it does not, the findings say why.
	ExamineToken(ctx context.Context, token string) (claimed bool, findings []doctor.Finding)
}

// Minter is implemented by a verifier that holds what its tokens are signed
// with, for tests and demonstrations.
type Minter interface {
	// Mint makes a token that the verifier itself accepts for ttl from now. The
	// claim sub is the user's id: it goes where the verifier reads it. What the
	// verifier demands (issuer, audience, required claims) is added; other claims
	// are signed as they are. It fails where only the public half of a key is known.
	Mint(claims map[string]any, ttl time.Duration) (string, error)
}

// Schemer is implemented by a Minter whose tokens may stand in Authorization
// behind another scheme than Bearer.
type Schemer interface {
	// AuthScheme is the scheme that the verifier reads (RFC 9110, section 11.4).
	AuthScheme() string
}
