package rediscounters

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
)

// The scripts get MessagePack, which Redis decodes natively and without loss up
// to 2^53; its specification is at github.com/msgpack/msgpack.

// packer builds a sequence of MessagePack values: without an array around them
// Lua has them at once, in a table of the right size.
type packer struct{ b []byte }

func (p *packer) reset() { p.b = p.b[:0] }

func (p *packer) int(v int64) {
	switch {
	case v >= 0 && v < 0x80:
		p.b = append(p.b, byte(v))
	case v >= -32 && v < 0:
		p.b = append(p.b, byte(v))
	case v >= 0 && v <= math.MaxUint16:
		p.b = append(p.b, 0xcd, byte(v>>8), byte(v))
	case v >= 0 && v <= math.MaxUint32:
		p.b = binary.BigEndian.AppendUint32(append(p.b, 0xce), uint32(v))
	default:
		p.b = binary.BigEndian.AppendUint64(append(p.b, 0xd3), uint64(v))
	}
}

func (p *packer) head(n int) {
	switch {
	case n < 32:
		p.b = append(p.b, 0xa0|byte(n))
	case n <= math.MaxUint8:
		p.b = append(p.b, 0xd9, byte(n))
	case n <= math.MaxUint16:
		p.b = append(p.b, 0xda, byte(n>>8), byte(n))
	default:
		p.b = binary.BigEndian.AppendUint32(append(p.b, 0xdb), uint32(n))
	}
}

func (p *packer) string(s string) {
	p.head(len(s))
	p.b = append(p.b, s...)
}

func (p *packer) bytes(s []byte) {
	p.head(len(s))
	p.b = append(p.b, s...)
}

// unpacker reads what a script has packed: integers and strings, one after the other.
type unpacker struct{ b []byte }

var errPacked = errors.New("not what the scripts write")

func (u *unpacker) take(n int) ([]byte, error) {
	if n < 0 || n > len(u.b) {
		return nil, errPacked
	}
	b := u.b[:n]
	u.b = u.b[n:]
	return b, nil
}

// uint is a big-endian number of n bytes.
func (u *unpacker) uint(n int) (uint64, error) {
	b, err := u.take(n)
	var v uint64
	for _, c := range b {
		v = v<<8 | uint64(c)
	}
	return v, err
}

func (u *unpacker) int() (int64, error) {
	kind, err := u.uint(1)
	if err != nil {
		return 0, err
	}
	switch {
	case kind < 0x80:
		return int64(kind), nil
	case kind >= 0xe0:
		return int64(int8(kind)), nil
	case kind >= 0xcc && kind <= 0xcf:
		v, err := u.uint(1 << (kind - 0xcc))
		return int64(v), err
	case kind >= 0xd0 && kind <= 0xd3:
		size := 1 << (kind - 0xd0)
		v, err := u.uint(size)
		shift := 64 - 8*size
		return int64(v<<shift) >> shift, err
	}
	return 0, errPacked
}

func (u *unpacker) string() (string, error) {
	kind, err := u.uint(1)
	if err != nil {
		return "", err
	}
	size := kind & 0x1f
	switch {
	case kind >= 0xd9 && kind <= 0xdb:
		if size, err = u.uint(1 << (kind - 0xd9)); err != nil {
			return "", err
		}
	case kind>>5 != 0xa0>>5:
		return "", errPacked
	}
	b, err := u.take(int(min(size, math.MaxInt32)))
	return string(b), err
}

// reply reads a RESP reply (redis.io/docs/reference/protocol-spec) that is an
// array of integers and bulk strings, without keeping anything of it.
type reply struct {
	b []byte
	n int // elements left
}

// openReply reads the header of an array.
func openReply(b []byte) (reply, error) {
	r := reply{b: b}
	n, err := r.line('*')
	r.n = int(n)
	return r, err
}

// line reads a number behind its kind.
func (r *reply) line(kind byte) (int64, error) {
	if len(r.b) < 3 || r.b[0] != kind {
		return 0, r.unexpected()
	}
	i, neg := 1, r.b[1] == '-'
	if neg {
		i++
	}
	var v int64
	for ; i < len(r.b) && r.b[i] >= '0' && r.b[i] <= '9'; i++ {
		v = v*10 + int64(r.b[i]-'0')
	}
	if i+1 >= len(r.b) || r.b[i] != '\r' || r.b[i+1] != '\n' {
		return 0, r.unexpected()
	}
	r.b = r.b[i+2:]
	if neg {
		v = -v
	}
	return v, nil
}

func (r *reply) unexpected() error {
	return fmt.Errorf("reading a script's answer: unexpected %q", r.b[:min(len(r.b), 32)])
}

func (r *reply) int() (int64, error) {
	r.n--
	return r.line(':')
}

func (r *reply) string() (string, error) {
	r.n--
	n, err := r.line('$')
	if err != nil || n < 0 || int(n)+2 > len(r.b) {
		return "", errors.Join(err, r.unexpected())
	}
	s := string(r.b[:n])
	r.b = r.b[n+2:]
	return s, nil
}

// appendField appends the name of a usage counter among those of its account.
func appendField(b []byte, metric string, period byte, start int64) []byte {
	b = append(b, metric...)
	b = append(b, '|', period, '|')
	return strconv.AppendInt(b, start, 10)
}
