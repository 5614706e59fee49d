package memcounters

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

// A log file is a header and then frames. A frame is the length of its payload,
// the CRC-32C of the payload (both 32 bits, little endian), the payload (one or
// more items) and zeros up to a multiple of 8 bytes: so that a frame's header can
// be stored at once, after its payload. A frame counts whole or not at all, so
// that what one request took of a shard is never replayed in part. Behind the
// last frame a file may hold zeros: room that is reserved.
const (
	logVersion  = 3
	headerSize  = 8 // "qgcnt", version, shard, number of shards
	frameHeader = 8
	// frameAlign divides the length of each frame, and of the file's header.
	frameAlign = 8
	// maxFrame is a sanity bound: a longer frame is corrupt.
	maxFrame = 1 << 28
	// imageFrame is about how long the frames of a snapshot are.
	imageFrame = 32 << 10
)

const logMagic = "qgcnt"

// The kinds of items.
const (
	itemEpoch   = 'e' // usage items that follow belong to this epoch
	itemDropped = 'd' // an epoch that the records hold whole
	itemClock   = 'c' // the engine's time, ms
	itemRate    = 'r' // a cost was added to a rate window
	itemHit     = 'h' // the same, of a window that has a name
	itemReset   = 'z' // a rate window was emptied
	itemUsage   = 'u' // totals of one counter: absolute, so that reading one twice counts once
	itemTotals  = 'v' // the same, of a counter that has a name
	itemOnce    = 'o' // a Once was charged
	itemForgot  = 'x' // a Once was given back

	// Most items are of few windows and counters, and most of an item is what it
	// is of. So a file gives them names: numbers that stand before the first item
	// of each, and for it in those that follow.
	itemNamedRate  = 'R'
	itemNamedUsage = 'U'
)

var errCorrupt = errors.New("corrupt record")

func crcTable() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) } // cached by the package

func appendHeader(b []byte, shard, shards int) []byte {
	b = append(b, logMagic...)
	return append(b, logVersion, byte(shard), byte(shards))
}

// beginFrame empties b but for the room of a frame's header.
func beginFrame(b []byte) []byte {
	return append(b[:0], 0, 0, 0, 0, 0, 0, 0, 0)
}

// endFrame fills in the header of the one frame in b, and pads it.
func endFrame(b []byte) []byte {
	payload := b[frameHeader:]
	binary.LittleEndian.PutUint32(b, uint32(len(payload)))
	binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(payload, crcTable()))
	for len(b)%frameAlign != 0 {
		b = append(b, 0)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func appendEpoch(b []byte, kind byte, id string) []byte {
	return appendString(append(b, kind), id)
}

func appendClock(b []byte, ms int64) []byte {
	return binary.AppendVarint(append(b, itemClock), ms)
}

func appendRate(b []byte, k windowKey, at, width, cost int64) []byte {
	return appendHitOf(append(b, itemRate), k, at, width, cost)
}

func appendNamedRate(b []byte, name uint64, k windowKey, at, width, cost int64) []byte {
	return appendHitOf(appendName(b, itemNamedRate, name), k, at, width, cost)
}

func appendHit(b []byte, name uint64, at, cost int64) []byte {
	return binary.AppendVarint(binary.AppendVarint(appendName(b, itemHit, name), at), cost)
}

func appendName(b []byte, kind byte, name uint64) []byte {
	return binary.AppendUvarint(append(b, kind), name)
}

func appendHitOf(b []byte, k windowKey, at, width, cost int64) []byte {
	b = appendString(append(b, k.digest[:]...), k.scope)
	b = binary.AppendVarint(b, at)
	b = binary.AppendVarint(b, width)
	return binary.AppendVarint(b, cost)
}

func appendReset(b []byte, k windowKey) []byte {
	b = append(append(b, itemReset), k.digest[:]...)
	return appendString(b, k.scope)
}

func appendKey(b []byte, k quota.Key) []byte {
	b = append(b, k.Digest[:]...)
	b = appendString(b, k.Name)
	b = append(b, byte(k.Space), byte(k.Period))
	return binary.AppendVarint(b, k.Start)
}

func appendUsage(b []byte, k quota.Key, t *tally) []byte {
	return appendTallyOf(append(b, itemUsage), k, t)
}

func appendNamedUsage(b []byte, name uint64, k quota.Key, t *tally) []byte {
	return appendTallyOf(appendName(b, itemNamedUsage, name), k, t)
}

func appendTotals(b []byte, name uint64, t *tally) []byte {
	return appendAmounts(appendName(b, itemTotals, name), t)
}

func appendTallyOf(b []byte, k quota.Key, t *tally) []byte {
	b = appendString(appendKey(b, k), string(t.account))
	return appendAmounts(binary.AppendVarint(b, t.end), t)
}

func appendAmounts(b []byte, t *tally) []byte {
	return binary.AppendVarint(binary.AppendVarint(b, t.spent), t.refunded)
}

func appendOnce(b []byte, k onceKey, at int64) []byte {
	b = appendKey(append(b, itemOnce), k.key)
	b = append(b, k.once[:]...)
	return binary.AppendVarint(b, at)
}

func appendForgot(b []byte, k onceKey) []byte {
	b = appendKey(append(b, itemForgot), k.key)
	return append(b, k.once[:]...)
}

// item is one decoded item: the fields of its kind are set.
type item struct {
	kind                 byte
	id                   string // epoch
	name                 uint64
	window               windowKey
	key                  quota.Key
	once                 quota.Digest
	at, width, cost      int64
	account              string
	end, spent, refunded int64
}

// decoder reads items. After the first fault everything that it reads is zero.
type decoder struct {
	b      []byte
	failed bool
}

func (d *decoder) bytes(n uint64) []byte {
	if d.failed || n > uint64(len(d.b)) {
		d.failed = true
		return nil
	}
	out := d.b[:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) byte() byte {
	if b := d.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) digest() (out quota.Digest) {
	copy(out[:], d.bytes(uint64(len(out))))
	return out
}

func (d *decoder) string() string {
	n, size := binary.Uvarint(d.b)
	if d.failed || size <= 0 {
		d.failed = true
		return ""
	}
	d.b = d.b[size:]
	return string(d.bytes(n))
}

func (d *decoder) name() uint64 {
	n, size := binary.Uvarint(d.b)
	if d.failed || size <= 0 || n == 0 {
		d.failed = true
		return 0
	}
	d.b = d.b[size:]
	return n
}

// amount reads a number that is never negative.
func (d *decoder) amount() int64 {
	n, size := binary.Varint(d.b)
	if d.failed || size <= 0 || n < 0 {
		d.failed = true
		return 0
	}
	d.b = d.b[size:]
	return n
}

func (d *decoder) number() int64 {
	n, size := binary.Varint(d.b)
	if d.failed || size <= 0 {
		d.failed = true
		return 0
	}
	d.b = d.b[size:]
	return n
}

func (d *decoder) key() quota.Key {
	k := quota.Key{Digest: d.digest(), Name: d.string()}
	k.Space, k.Period = quota.Space(d.byte()), quota.Period(d.byte())
	k.Start = d.number()
	if k.Space > quota.SpaceUsage || k.Period > quota.PeriodNone {
		d.failed = true
	}
	return k
}

func (d *decoder) rate(it *item) {
	it.window = windowKey{digest: d.digest(), scope: d.string()}
	it.at, it.width, it.cost = d.number(), d.amount(), d.amount()
	d.failed = d.failed || it.width == 0
}

func (d *decoder) usage(it *item) {
	it.key, it.account = d.key(), d.string()
	it.end, it.spent, it.refunded = d.number(), d.amount(), d.amount()
}

// next decodes one item.
func (d *decoder) next() (item, error) {
	it := item{kind: d.byte()}
	switch it.kind {
	case itemEpoch, itemDropped:
		it.id = d.string()
	case itemClock:
		it.at = d.number()
	case itemNamedRate:
		it.name = d.name()
		d.rate(&it)
	case itemRate:
		d.rate(&it)
	case itemHit:
		it.name, it.at, it.cost = d.name(), d.number(), d.amount()
	case itemReset:
		it.window = windowKey{digest: d.digest(), scope: d.string()}
	case itemNamedUsage:
		it.name = d.name()
		d.usage(&it)
	case itemUsage:
		d.usage(&it)
	case itemTotals:
		it.name, it.spent, it.refunded = d.name(), d.amount(), d.amount()
	case itemOnce:
		it.key, it.once, it.at = d.key(), d.digest(), d.number()
	case itemForgot:
		it.key, it.once = d.key(), d.digest()
	default:
		return it, fmt.Errorf("%w: unknown kind %q", errCorrupt, it.kind)
	}
	if d.failed {
		return it, fmt.Errorf("%w: item %q is malformed", errCorrupt, it.kind)
	}
	return it, nil
}

// logEnd says how a log file ended. Where it is neither torn nor corrupt, there
// are only zeros behind what was read, or nothing.
type logEnd struct {
	// good is the length of what was read.
	good int64
	// torn reports that an append was cut off by the end of the process: ordinary.
	// corrupt reports that a record before the end cannot be read.
	torn, corrupt bool
}

// readFrames calls apply with the payload of each frame, up to the first that
// is torn or corrupt. b begins with a file's header.
func readFrames(b []byte, apply func(payload []byte) error) logEnd {
	off := headerSize
	for off < len(b) {
		payload, size := frameAt(b[off:])
		if payload == nil || apply(payload) != nil {
			return endAt(b, off)
		}
		off += size
	}
	return logEnd{good: int64(off)}
}

// frameAt is the payload of the frame that b begins with, and the frame's
// length; nil where b does not begin with a whole frame.
func frameAt(b []byte) (payload []byte, size int) {
	if len(b) < frameHeader {
		return nil, 0
	}
	n := int64(binary.LittleEndian.Uint32(b))
	padded := (frameHeader + n + frameAlign - 1) / frameAlign * frameAlign
	if n == 0 || n > maxFrame || padded > int64(len(b)) {
		return nil, 0
	}
	payload = b[frameHeader : frameHeader+n]
	if crc32.Checksum(payload, crcTable()) != binary.LittleEndian.Uint32(b[4:]) {
		return nil, 0
	}
	return payload, int(padded)
}

// endAt tells why there is no frame to read at off: because the file ends there,
// because the process that wrote one was killed, which leaves any bytes of it but
// no frame behind it, or because the file was damaged.
func endAt(b []byte, off int) logEnd {
	end := logEnd{good: int64(off)}
	used := off + len(bytes.TrimRight(b[off:], "\x00"))
	if used == off {
		return end
	}
	for next := off + frameAlign; next < used; next += frameAlign {
		if payload, _ := frameAt(b[next:]); payload != nil {
			end.corrupt = true
			return end
		}
	}
	end.torn = true
	return end
}
