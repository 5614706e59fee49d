package memcounters

import (
	"bytes"
	"testing"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

// FuzzReadFrames: whatever a file holds, it is read to a whole record and no further.
func FuzzReadFrames(f *testing.F) {
	frame := appendEpoch(beginFrame(nil), itemEpoch, "e")
	c := usageCharge("user:a", "jobs", quota.PeriodMonth)
	frame = appendUsage(frame, c.Key, &tally{account: "user:a", end: 7, spent: 3, refunded: 1})
	frame = appendRate(frame, windowKey{c.Key.Digest, "api"}, 5, 10, 1)
	frame = appendNamedUsage(frame, 1, c.Key, &tally{account: "user:a", end: 7, spent: 3, refunded: 1})
	frame = appendTotals(frame, 1, &tally{spent: 4, refunded: 1})
	frame = appendNamedRate(frame, 2, windowKey{c.Key.Digest, "api"}, 5, 10, 1)
	frame = appendHit(frame, 2, 6, 1)
	frame = appendOnce(frame, onceKey{c.Key, c.Key.Digest}, 5)
	frame = appendForgot(frame, onceKey{c.Key, c.Key.Digest})
	frame = appendReset(frame, windowKey{c.Key.Digest, "api"})
	frame = appendClock(appendEpoch(frame, itemDropped, "e"), -5)
	frame = endFrame(frame)
	header := appendHeader(nil, 0, shards)
	f.Add(append(header, frame...))
	f.Add(append(append(header, frame...), frame[:20]...))
	f.Add(append(header, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0))
	f.Add(append(header, make([]byte, 64)...))
	f.Add(append(append(append(header, frame...), make([]byte, 64)...), frame...))
	f.Add(append(append(append(header, make([]byte, 8)...), frame[frameHeader:40]...), make([]byte, 64)...))
	f.Add(header)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < headerSize {
			return
		}
		var s shard
		s.init("", minSegment)
		l := loading{epochs: map[string]bool{}}
		r := newReplay(&s, &l)
		end := readFrames(b, r.frame)
		if end.good < headerSize || end.good > int64(len(b)) || (end.torn && end.corrupt) {
			t.Fatalf("%+v of %d bytes", end, len(b))
		}
		rest := bytes.Trim(b[end.good:], "\x00")
		if ended := len(rest) == 0; ended != (!end.torn && !end.corrupt) {
			t.Fatalf("%+v with %d bytes behind it that are not zero", end, len(rest))
		}
	})
}

// FuzzItems reads frames whose checksum is right.
func FuzzItems(f *testing.F) {
	c := usageCharge("user:a", "jobs", quota.PeriodMonth)
	f.Add(appendRate(nil, windowKey{c.Key.Digest, "api"}, 5, 10, 1))
	f.Add(appendUsage(appendEpoch(nil, itemEpoch, "e"), c.Key, &tally{account: "user:a"}))
	f.Add(appendTotals(appendNamedUsage(appendEpoch(nil, itemEpoch, "e"), 1, c.Key, &tally{account: "user:a"}), 1, &tally{spent: 1}))
	f.Add(appendHit(appendNamedRate(nil, 1, windowKey{c.Key.Digest, "api"}, 5, 10, 1), 1, 6, 2))
	f.Add(appendHit(nil, 1, 6, 2))
	f.Add([]byte("r"))
	f.Fuzz(func(t *testing.T, payload []byte) {
		var s shard
		s.init("", minSegment)
		l := loading{epochs: map[string]bool{}}
		r := newReplay(&s, &l)
		if err := r.frame(payload); err != nil && (len(s.windows)+len(s.once)+len(s.retired)+len(r.epochs)) != 0 {
			t.Fatalf("a malformed frame was applied in part: %v", err)
		}
		s.sweep(l.newest)
	})
}
