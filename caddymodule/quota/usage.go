package quota

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Total is what one epoch has counted of one account, metric and period since
// the epoch began: absolute, never falling, so that writing it twice counts once.
type Total struct {
	Account         Subject
	Metric          string
	Period          Period
	Start, End      int64 // Unix seconds; 0 for a level
	Spent, Refunded int64
}

// Key is the counter of the total: its digest is the account's, as in all usage charges.
func (t *Total) Key() Key {
	return Key{Digest: t.Account.Digest(), Name: t.Metric, Space: SpaceUsage, Period: t.Period, Start: t.Start}
}

// SortTotals sorts totals as EpochTotals has them: by account, metric, period and start.
func SortTotals(totals []Total) {
	slices.SortFunc(totals, func(a, b Total) int {
		return cmp.Or(
			cmp.Compare(a.Account, b.Account), cmp.Compare(a.Metric, b.Metric),
			cmp.Compare(a.Period, b.Period), cmp.Compare(a.Start, b.Start),
		)
	})
}

// EpochTotals are totals of one gateway process's epoch, sorted as SortTotals does.
type EpochTotals struct {
	Epoch string // UUIDv7
	Rows  []Total
	// Final says that the process adds nothing more: the epoch is closed with this
	// write. A Kept one may be closed already, and takes the rows all the same.
	Final bool
	// Kept says that counters which outlive the process hold these totals too: if
	// it dies, what they hold beyond what was written is copied from there.
	Kept bool
}

// ClosedEpoch is a kept epoch that was closed and whose totals counters still hold.
type ClosedEpoch struct {
	Epoch string
	// For is how long ago it was closed, on the records' clock.
	For time.Duration
}

// EpochClosedError refuses totals of an epoch that was closed by a reaper: the
// process was thought dead. Nothing was written.
type EpochClosedError struct {
	Epoch string
	// FlushSeq is the number of the epoch's newest flush whose rollups were
	// applied; 0 where it is not known or there was none.
	FlushSeq int64
}

func (e *EpochClosedError) Error() string {
	return fmt.Sprintf("epoch %s is closed", e.Epoch)
}

// EpochCompactedError answers for an epoch whose rows were folded into one with
// others, a day after it was closed: what it held is counted, but can no longer
// be told apart. A process that held such an epoch must not count its totals again.
type EpochCompactedError struct{ Epoch string }

func (e *EpochCompactedError) Error() string {
	return fmt.Sprintf("epoch %s was compacted: its totals are counted and cannot be told apart", e.Epoch)
}

// UsageKey names an account's usage of a metric in one period.
type UsageKey struct {
	Metric string
	Period Period
	Start  int64
}

// Used is what the records say of one counter.
type Used struct {
	// Amount is the sum over all epochs but the excepted ones.
	Amount int64
	// Excepted is what the records have of each excepted epoch, in the order in
	// which they were named. Of an epoch that was compacted it cannot be told: it is
	// in Amount, and Spent and Refunded are MaxAmount, so that nothing that counters
	// still hold of it is more.
	Excepted []Total
}

// ColdError says that the counters do not know what was used of some keys:
// they are loaded from the records, filled in, and the call is made again.
type ColdError struct {
	// Charges are the indices of the cold charges.
	Charges []int
	// Except are the epochs whose totals the counters hold themselves: they are
	// left out of the load, and Carry[i] is added for Charges[i] instead.
	Except []string
	Carry  []int64
	// Generation guards against an epoch that ends between load and fill: a Fill
	// of another generation is ignored and the key stays cold.
	Generation uint64
}

func (e *ColdError) Error() string { return fmt.Sprintf("%d counters are cold", len(e.Charges)) }

// Base fills a cold counter: Used is what the records say, plus the carry.
type Base struct {
	Key  Key
	Used int64
	// Recorded is what the records have of the epochs that the ColdError excepted,
	// in its order; nil: nothing. Counters that came back with older data hold less
	// of an epoch than the records: of each the larger total counts.
	Recorded   []Total
	Generation uint64
}

// Change says that something about a subject was changed in the records.
// Subject is an account ("user:<id>", "org:<id>"), "plan:<id>", or "*" for everything.
type Change struct {
	Seq     int64
	Subject Subject
}

// AllSubjects is the subject of a change that concerns everyone.
const AllSubjects Subject = "*"

// Rollup is a delta for the charts: requests of one kind within one hour. A
// request stands in them once for each rule that applied, under the rule's word,
// and under each metric that the rule spends.
type Rollup struct {
	Hour        int64 // Unix seconds, a multiple of 3600
	Account     Subject
	Scope       string // a metric, or the rule's first scope or metric, else its name
	Decision    string // "admitted", "shadow_denied", or the code of the denial
	StatusClass int    // of the answer: 2 for 2xx; 0 where none was sent
	Requests    int64
	Cost        int64 // of the metric that Scope names, else of the rule's first one
}

// Seen is a caller learned from a verified credential.
type Seen struct {
	Account Subject
	Email   string // empty where the credential has none
	At      time.Time
}

// Flush is what a gateway process writes to the records at once. Totals are
// absolute and may be applied twice; Rollups are deltas and are applied only
// if Seq is above the epoch's last one.
type Flush struct {
	EpochTotals
	// Process names the gateway process, whatever epochs it has: those that live
	// share the limits. Empty: it judges no requests, or the epoch is another's.
	Process string
	// Seq numbers the flushes that carry charts, which are the last of what is written
	// at a time. 0: there is more to come.
	Seq     int64
	Rollups []Rollup
	Seen    []Seen
	// Thresholds may be told again: the records raise each once.
	Thresholds []Threshold
}
