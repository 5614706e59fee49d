package rediscounters

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

// epochLife is how long an epoch lasts: its hashes in Redis hold every counter
// that was touched in it.
const epochLife = 24 * time.Hour

// epoch is what this process has counted since some moment. It sums up the
// answers, so it stands whatever becomes of Redis; the hashes in Redis are for
// the case that the process dies.
type epoch struct {
	id    string
	began time.Time
	// tokens say by bucket which hash of the epoch this process knows, 0: none
	// yet. A server that lost its data does not know it, and the epoch ends.
	tokens [buckets]atomic.Int64
	// busy counts the calls that may still add to the tallies.
	busy atomic.Int64
	// lossy: it ended because Redis had lost a part of it.
	lossy atomic.Bool

	shards [tallyShards]tallyShard
}

const tallyShards = 64

type tallyShard struct {
	mu      sync.Mutex
	tallies map[quota.Key]*tally
	dirty   []*tally
}

// tally is what an epoch has counted of one counter.
type tally struct {
	key             quota.Key
	account         quota.Subject
	end             int64
	spent, refunded int64
	dirty           bool // the records do not have these values yet
}

func newEpoch() *epoch {
	e := &epoch{id: uuid.Must(uuid.NewV7()).String(), began: time.Now()}
	for i := range e.shards {
		e.shards[i].tallies = make(map[quota.Key]*tally)
	}
	return e
}

func (e *epoch) shard(d quota.Digest) *tallyShard { return &e.shards[d[2]%tallyShards] }

// known is what is certain to be in Redis, or was.
func (e *epoch) known(k *quota.Key) (spent, refunded int64) {
	s := e.shard(k.Digest)
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tallies[*k]; t != nil {
		return t.spent, t.refunded
	}
	return 0, 0
}

// add counts what a call did.
func (e *epoch) add(k *quota.Key, account quota.Subject, end, spent, refunded int64) {
	if spent == 0 && refunded == 0 {
		return
	}
	s := e.shard(k.Digest)
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tallies[*k]
	if t == nil {
		// A copy: it may be a part of a request's token.
		t = &tally{key: *k, account: quota.Subject(strings.Clone(string(account))), end: end}
		s.tallies[*k] = t
	}
	t.spent += spent
	t.refunded += refunded
	if !t.dirty {
		t.dirty = true
		s.dirty = append(s.dirty, t)
	}
}

func (t *tally) row() quota.Total {
	return quota.Total{
		Account: t.account, Metric: t.key.Name, Period: t.key.Period, Start: t.key.Start, End: t.end,
		Spent: t.spent, Refunded: t.refunded,
	}
}
