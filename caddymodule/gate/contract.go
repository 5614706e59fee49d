package gate

import (
	"context"
	"errors"
	"net/http"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

// Verifier tells who asks. It answers ErrNoCredential if the places that it
// reads are empty, ErrUnclaimed if what stands there is not of its kind, and an
// *InvalidError if it claims the credential and refuses it. The principal is
// shared between requests and must not be written to.
type Verifier interface {
	Verify(ctx context.Context, r *http.Request) (*quota.Principal, error)
}

// The ways in which a verifier passes.
var (
	ErrNoCredential = errors.New("no credential")
	ErrUnclaimed    = errors.New("a credential that this verifier does not claim")
)

// InvalidError refuses a credential. Reason is for logs: it holds nothing of
// the credential itself.
type InvalidError struct{ Reason string }

func (e *InvalidError) Error() string { return "invalid credential: " + e.Reason }

// Loader loads what an account may do. An account that the records do not know
// has the default plan; that is no error.
type Loader interface {
	Entitlement(ctx context.Context, account quota.Subject) (*quota.Entitlement, error)
}

// Bus tells what was changed in the records.
type Bus interface {
	// Latest is the number of the newest change.
	Latest(ctx context.Context) (int64, error)
	// Watch calls deliver with each batch of changes numbered above after, in
	// order, until ctx ends (nil) or the connection fails (the error; the caller
	// retries). It may deliver a change twice, and AllSubjects where it may have
	// missed some, or where the records were replaced by older ones: it is then
	// numbered below after, and numbers go on from there. deliver with no changes
	// says that the connection lives. What look holds has it look for changes at once.
	Watch(ctx context.Context, after int64, look <-chan struct{}, deliver func([]quota.Change)) error
}

// UsageStore keeps usage in the records.
type UsageStore interface {
	// Flush writes totals, rollups and callers in one transaction, opens the
	// epoch at first sight, and is its heartbeat. It answers a
	// *quota.EpochClosedError, and writes nothing, if the epoch is closed.
	Flush(ctx context.Context, f quota.Flush) error
	// EpochTotals are the rows of one epoch.
	EpochTotals(ctx context.Context, epoch string) ([]quota.Total, error)
	// Usage is what was used of each key, over all epochs but those in except, and
	// what the records have of these. A level (PeriodNone) includes the value that
	// an admin has set.
	Usage(ctx context.Context, account quota.Subject, keys []quota.UsageKey, except []string) ([]quota.Used, error)
}

// Counters count. All calls are all-or-nothing over their charges, and safe for
// concurrent use.
type Counters interface {
	// Reserve takes all charges or none and writes the decision into d: a denial
	// is a decision, never an error. It may answer a *quota.ColdError, and has then
	// taken nothing; a forced charge is never cold. quota.ErrOverflow refuses an
	// amount that no counter can hold. Anything else means that the counters could
	// not be asked (see on_outage): a *CounterError, unless the charges themselves
	// are malformed. The caller then goes on as if nothing had been taken: a
	// call that may have run all the same is never sent again, and what it took
	// is given back by the counters themselves as soon as they can be asked.
	Reserve(ctx context.Context, cs []quota.Charge, d *quota.Decision) error
	// Refund gives usage back. Of a receipt that is Free no more is given than is
	// there: where that is not known it answers a *quota.ColdError, which counts receipts
	// instead of charges, and has given nothing. Of another error it depends
	// whether a *CounterError says NotRun: such a refund is the caller's again,
	// any other is completed by the counters, once, as soon as they can be asked.
	Refund(ctx context.Context, rs []quota.Receipt) error
	// Peek is Reserve without taking anything.
	Peek(ctx context.Context, cs []quota.Charge, d *quota.Decision) error
}

// Refiller is the side of Counters that follows the records.
type Refiller interface {
	// Fill sets what was used of cold keys.
	Fill(ctx context.Context, bs []quota.Base) error
	// Forget makes the usage of an account cold: it was changed in the records.
	// quota.AllSubjects stands for every account.
	Forget(ctx context.Context, account quota.Subject) error
	// Reset empties the rate windows of a subject, all or the named scopes, and
	// reports the scopes that were not empty.
	Reset(ctx context.Context, subject quota.Subject, scopes []string) ([]string, error)
}

// Ledger is the metering side of Counters: what this process has admitted.
type Ledger interface {
	// Totals are the totals that changed since they were last acknowledged, one
	// for each epoch that this process holds; the current epoch is last and is
	// there even if nothing changed (the heartbeat).
	Totals() []quota.EpochTotals
	// Flushed acknowledges what Totals gave. A Final epoch is forgotten.
	Flushed(t quota.EpochTotals)
	// Rebase moves what a closed epoch holds beyond the rows of the records into
	// the current epoch, or into a new one if it was the current. Of a Kept epoch
	// nothing is moved, and rows is nil: it ends, others begin a new one, and its
	// totals stay in Totals, Final, until they are acknowledged. They are written
	// into the closed epoch, as a reaper does it: whoever comes first, the larger
	// total stays, and nothing is counted in two epochs.
	Rebase(closed string, rows []quota.Total)
}

// Engine is what a counters guest provides.
type Engine interface {
	Counters
	Refiller
	Ledger
}

// EpochKeeper is implemented by counters that outlive their processes and hold
// the totals of all epochs (quota.EpochTotals.Kept): what a process had not
// flushed when it died is copied from there.
type EpochKeeper interface {
	// EpochTotals is all that the counters hold of an epoch; none is no error.
	EpochTotals(ctx context.Context, epoch string) ([]quota.Total, error)
	// KeepEpoch takes the totals of an epoch that has ended and that a process has
	// counted by itself: from there on they outlive it as well. It may be repeated.
	KeepEpoch(ctx context.Context, epoch string, rows []quota.Total) error
	// DropEpoch forgets an epoch that was closed a while ago. A process that comes
	// back and still charges it must notice, and begin another.
	DropEpoch(ctx context.Context, epoch string) error
}

// EpochLister is implemented by an EpochKeeper that can say what it holds. An
// epoch that the records have never heard of, because its process died before its
// first flush, is found so.
type EpochLister interface {
	Epochs(ctx context.Context) ([]string, error)
}

// Debtor is implemented by counters that complete refunds by themselves (see
// Counters.Refund).
type Debtor interface {
	// Owed takes the refunds that turned out not to have run, and that cannot be
	// made by the counters alone: a level that they free is not known. They are the
	// caller's again. Each is of one account.
	Owed() [][]quota.Receipt
}

// Prober is implemented by counters that may be out of reach. They get a
// breaker: after a fault of Reserve, Peek or Refund no request waits for them
// until Probe succeeds.
type Prober interface {
	// Probe reports whether Reserve would succeed, whatever it is asked for: it
	// writes, within the time that one call has, on every server that Reserve may
	// write to. It settles what became of earlier calls of which that is not known
	// (see Counters). It is called by one goroutine at a time.
	Probe(ctx context.Context) error
}

// Reaper is implemented by a UsageStore that several processes share.
type Reaper interface {
	// Reap closes the epochs of dead processes, under a lease, and says how many.
	// Where the caller copies totals, it names the kept epochs that are closed and
	// not Dropped yet.
	Reap(ctx context.Context, copies bool) (closed int, kept []quota.ClosedEpoch, err error)
	// Dropped notes that the counters hold nothing more of a closed epoch.
	Dropped(ctx context.Context, epoch string) error
	// Found notes that the counters hold a closed epoch: Reap names it, also if it
	// was Dropped before, and again says whether it was. It answers a
	// *quota.EpochCompactedError if all that they can hold of it is counted.
	Found(ctx context.Context, epoch string) (again bool, err error)
	// Gateways is how many processes live that judge requests.
	Gateways(ctx context.Context) (int, error)
}

// CounterError is a fault of counters whose kind is known.
type CounterError struct {
	Kind FaultKind
	// NotRun says that the call certainly had no effect and will have none.
	NotRun bool
	Err    error
}

func (e *CounterError) Error() string {
	return "asking the counters: " + string(e.Kind) + ": " + e.Err.Error()
}

func (e *CounterError) Unwrap() error { return e.Err }

// FaultKind says what is wrong with counters: a label of metrics, and what an
// operator looks for.
type FaultKind string

// The kinds of faults. Those from FaultNoScript on are named after the errors of Redis.
const (
	FaultTimeout     FaultKind = "timeout"     // no answer in time: it may have run
	FaultUnreachable FaultKind = "unreachable" // no connection
	FaultBroken      FaultKind = "broken"      // the connection broke: it may have run
	FaultNoScript    FaultKind = "noscript"    // the scripts cannot be loaded
	FaultReadOnly    FaultKind = "readonly"    // a replica
	FaultLoading     FaultKind = "loading"     // it reads its data after a start
	FaultMemory      FaultKind = "oom"         // it has no memory for a write
	FaultMisconf     FaultKind = "misconf"     // it cannot save its data
	FaultClusterDown FaultKind = "clusterdown" // a slot has no master
	FaultBusy        FaultKind = "busy"        // a script runs for too long
	FaultDenied      FaultKind = "denied"      // NOAUTH, WRONGPASS, NOPERM
	// FaultOther is of one call alone, such as of a key that holds something else:
	// it opens no breaker.
	FaultOther FaultKind = "other"
)
