package rediscounters

import (
	"context"
	"sync"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/redis/go-redis/v9"
)

// maxBorrowed bounds what a call's memory may grow to and still be kept.
const maxBorrowed = 16 << 10

// call is one run of a script: its keys, its packed argument and its answer. It
// is borrowed from a pool, and given back once the answer is read; a call that
// is given up on is not, for the connection may still read it.
type call struct {
	script *script
	packer
	packed arg
	arena  []byte // of the keys
	keys   []arg
	args   []any
	rest   []string // plain arguments instead of a packed one
	out    buffer
}

// arg is an argument that is sent as it stands, without becoming a string.
type arg struct{ b []byte }

// MarshalBinary implements encoding.BinaryMarshaler.
func (a *arg) MarshalBinary() ([]byte, error) { return a.b, nil }

// buffer keeps a raw answer.
type buffer struct{ b []byte }

func (b *buffer) Write(p []byte) (int, error) {
	b.b = append(b.b, p...)
	return len(p), nil
}

var calls = sync.Pool{New: func() any { return new(call) }}

func newCall(s *script) *call {
	c := calls.Get().(*call)
	c.script = s
	c.reset()
	c.arena, c.keys, c.args, c.rest, c.out.b = c.arena[:0], c.keys[:0], c.args[:0], c.rest[:0], c.out.b[:0]
	return c
}

func (c *call) release() {
	if cap(c.b)+cap(c.arena)+cap(c.out.b) < maxBorrowed {
		clear(c.args)
		clear(c.rest)
		calls.Put(c)
	}
}

// addKey adds prefix:{bucket of owner}:kind<digest> and answers its index in KEYS.
func (c *call) addKey(prefix, kind string, owner, digest quota.Digest) int {
	from := len(c.arena)
	c.arena = appendDigest(append(appendTag(c.arena, prefix, bucketOf(owner)), kind...), digest)
	return c.added(from)
}

func (c *call) addMetaKey(prefix string, bucket int) int {
	from := len(c.arena)
	c.arena = append(appendTag(c.arena, prefix, bucket), kindMeta...)
	return c.added(from)
}

func (c *call) addEpochKey(prefix string, bucket int, epoch string) int {
	from := len(c.arena)
	c.arena = append(append(appendTag(c.arena, prefix, bucket), kindEpoch...), epoch...)
	return c.added(from)
}

func (c *call) added(from int) int {
	c.keys = append(c.keys, arg{c.arena[from:]})
	return len(c.keys)
}

// field adds the name of a usage counter among those of its account.
func (c *call) field(k *quota.Key) {
	var b [80]byte
	c.bytes(appendField(b[:0], k.Name, periodLetter(k.Period), k.Start))
}

// command is what is sent: by the script's digest, or with its source.
func (c *call) command(source bool) *redis.RawWriteToCmd {
	// The arena may have moved since a key was added.
	at := 0
	for i := range c.keys {
		n := len(c.keys[i].b)
		c.keys[i].b = c.arena[at : at+n]
		at += n
	}
	c.args = append(c.args[:0], "evalsha", c.script.digest, len(c.keys))
	if source {
		c.args[0], c.args[1] = "eval", c.script.source
	}
	for i := range c.keys {
		c.args = append(c.args, &c.keys[i])
	}
	if len(c.b) > 0 {
		c.packed.b = c.b
		c.args = append(c.args, &c.packed)
	}
	for _, s := range c.rest {
		c.args = append(c.args, s)
	}
	c.out.b = c.out.b[:0]
	return redis.NewRawWriteToCmd(context.Background(), &c.out, c.args...)
}

// deadline is a context that ends at a time and can be used again if it did not.
type deadline struct {
	at    time.Time
	done  chan struct{}
	timer *time.Timer
}

var deadlines = sync.Pool{New: func() any { return newDeadline() }}

func newDeadline() *deadline {
	d := &deadline{done: make(chan struct{})}
	d.timer = time.AfterFunc(time.Hour, func() { close(d.done) })
	d.timer.Stop()
	return d
}

func startDeadline(timeout time.Duration) *deadline {
	d := deadlines.Get().(*deadline)
	d.at = time.Now().Add(timeout)
	d.timer.Reset(timeout)
	return d
}

func (d *deadline) release() {
	if d.timer.Stop() {
		deadlines.Put(d)
	}
}

func (d *deadline) Deadline() (time.Time, bool) { return d.at, true }
func (d *deadline) Done() <-chan struct{}       { return d.done }
func (d *deadline) Value(any) any               { return nil }

func (d *deadline) Err() error {
	select {
	case <-d.done:
		return context.DeadlineExceeded
	default:
		return nil
	}
}
