package answer

import (
	"fmt"
	"net/http"
	"strconv"
	"time"
	"unsafe"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

// Mode says which families of rate limit headers an answer carries.
type Mode uint8

// The modes, as in the Caddyfile.
const (
	ModeBoth   Mode = iota // draft and legacy
	ModeDraft              // RateLimit-Policy and RateLimit
	ModeLegacy             // X-RateLimit-Limit, -Remaining and -Reset
	ModeOff
)

var modeNames = [...]string{"both", "draft", "legacy", "off"}

// String is the mode's name in the Caddyfile.
func (m Mode) String() string {
	if int(m) < len(modeNames) {
		return modeNames[m]
	}
	return fmt.Sprintf("mode(%d)", uint8(m))
}

// ParseMode is the inverse of String.
func ParseMode(s string) (Mode, error) {
	for i, name := range modeNames {
		if s == name {
			return Mode(i), nil
		}
	}
	return 0, fmt.Errorf("unknown headers mode %q: want draft, legacy, both or off", s)
}

// The canonical keys of the fields, for direct access to a header map.
const (
	keyPolicy    = "Ratelimit-Policy"
	keyLimit     = "Ratelimit"
	keyXLimit    = "X-Ratelimit-Limit"
	keyXRemain   = "X-Ratelimit-Remaining"
	keyXReset    = "X-Ratelimit-Reset"
	keyOldLimit  = "Ratelimit-Limit" // of drafts up to 07: a backend may still send them
	keyOldRemain = "Ratelimit-Remaining"
	keyOldReset  = "Ratelimit-Reset"
)

// maxInteger is the largest integer of a structured field (RFC 9651, 3.3.1): 15 digits.
const maxInteger = 999_999_999_999_999

// The values of Fields, by index.
const (
	valuePolicy = iota
	valueLimit
	valueXLimit
	valueXRemain
	valueXReset
	valueCount
)

// Fields are the rate limit headers of one answer, after
// draft-ietf-httpapi-ratelimit-headers-11 (lists of RFC 9651) and in the older
// X-RateLimit form. The zero value has none. A Fields belongs to one answer: the
// header map that it was applied to points into it.
type Fields struct {
	built  bool
	values [valueCount]string // empty where there is none
	// room is what the values are parts of, where it suffices: one allocation with
	// the Fields itself.
	room [fieldsRoom]byte
}

// fieldsRoom is enough for two rates and two quotas with their names.
const fieldsRoom = 256

// Build renders, once, what the decision left of each charge at now (the gateway's
// clock: it serves X-RateLimit-Reset and the resets of quotas). Not shown are
// unlimited charges, those only counted for display, and forced ones: a limit
// in shadow mode is nobody's business yet. Of charges with one name, as of an
// account and its address, the tightest is shown.
func (f *Fields) Build(cs []quota.Charge, d *quota.Decision, now time.Time) {
	f.built, f.values = false, [valueCount]string{}
	if len(d.Outcomes) < len(cs) {
		return // the counters could not be asked
	}
	var ends [valueCount]int
	b := f.room[:0]
	for i := range cs {
		if shown(cs, d, i) {
			b = appendPolicy(b, &cs[i])
		}
	}
	if len(b) == 0 {
		return
	}
	ends[valuePolicy] = len(b)
	for i := range cs {
		if shown(cs, d, i) {
			b = appendLimit(b, len(b) > ends[valuePolicy], cs, d, i, now)
		}
	}
	ends[valueLimit] = len(b)
	t := tightest(cs, d)
	b = strconv.AppendInt(b, cs[t].Limit.Max, 10)
	ends[valueXLimit] = len(b)
	b = strconv.AppendInt(b, left(cs, d, t), 10)
	ends[valueXRemain] = len(b)
	if wait := reset(cs, d, t, now); wait >= 0 {
		b = strconv.AppendInt(b, ceilUnix(now.Add(wait)), 10)
	}
	ends[valueXReset] = len(b)

	// Nothing writes to b, or to the room, any more: a Fields is built once.
	text := unsafe.String(unsafe.SliceData(b), len(b))
	f.built = true
	from := 0
	for i, to := range ends {
		f.values[i] = text[from:to]
		from = to
	}
}

// Apply sets the fields of the mode in h. Headers of the backend win, the
// family as a whole: an answer never mixes the backend's numbers with ours.
func (f *Fields) Apply(h http.Header, mode Mode) {
	if !f.built || mode == ModeOff {
		return
	}
	if mode != ModeLegacy && !hasAny(h, keyPolicy, keyLimit, keyOldLimit, keyOldRemain, keyOldReset) {
		f.set(h, keyPolicy, valuePolicy)
		f.set(h, keyLimit, valueLimit)
	}
	if mode != ModeDraft && !hasAny(h, keyXLimit, keyXRemain, keyXReset) {
		f.set(h, keyXLimit, valueXLimit)
		f.set(h, keyXRemain, valueXRemain)
		f.set(h, keyXReset, valueXReset)
	}
}

func (f *Fields) set(h http.Header, key string, i int) {
	if f.values[i] != "" {
		h[key] = f.values[i : i+1 : i+1]
	}
}

func hasAny(h http.Header, keys ...string) bool {
	for _, k := range keys {
		if _, ok := h[k]; ok {
			return true
		}
	}
	return false
}

// visible reports whether charge i is anything that a client can run into.
func visible(c *quota.Charge) bool { return !c.Limit.Unlimited && !c.Force }

// shown reports whether charge i is visible and no other of its name is tighter.
func shown(cs []quota.Charge, d *quota.Decision, i int) bool {
	if !visible(&cs[i]) {
		return false
	}
	for j := range cs {
		if j != i && visible(&cs[j]) && samePolicy(&cs[i].Key, &cs[j].Key) && tighter(cs, d, j, i) {
			return false
		}
	}
	return true
}

func samePolicy(a, b *quota.Key) bool {
	return a.Space == b.Space && a.Name == b.Name && a.Period == b.Period
}

// tighter orders charges of one name: the exceeded before others, then by what is left, then by place.
func tighter(cs []quota.Charge, d *quota.Decision, i, j int) bool {
	if a, b := d.Outcomes[i].Exceeded, d.Outcomes[j].Exceeded; a != b {
		return a
	}
	if a, b := left(cs, d, i), left(cs, d, j); a != b {
		return a < b
	}
	return i < j
}

// tightest is the charge that X-RateLimit shows: the one that denied, else the
// scope with the least left, else the quota with the least left. At least one
// charge is visible.
func tightest(cs []quota.Charge, d *quota.Decision) int {
	if d.Denied >= 0 {
		return d.Denied
	}
	best := -1
	for i := range cs {
		switch {
		case !visible(&cs[i]):
		case best < 0, cs[i].Key.Space < cs[best].Key.Space:
			best = i
		case cs[i].Key.Space == cs[best].Key.Space && left(cs, d, i) < left(cs, d, best):
			best = i
		}
	}
	return best
}

func left(cs []quota.Charge, d *quota.Decision, i int) int64 {
	return max(0, cs[i].Limit.Max-d.Outcomes[i].Used)
}

// reset is how long it takes until charge i has more left; negative where time
// does not help. For a rate that was not exceeded that is the whole window: the
// earliest instant at which all that was used has certainly left.
func reset(cs []quota.Charge, d *quota.Decision, i int, now time.Time) time.Duration {
	c := &cs[i]
	switch {
	case d.Outcomes[i].Exceeded:
		return d.WaitFor(cs, i, now)
	case c.Key.Space == quota.SpaceRate:
		return c.Limit.Window
	case c.End == 0:
		return -1
	}
	return max(0, time.Unix(c.End, 0).Sub(now))
}

// appendPolicy appends `"api";q=300;w=60` or `"jobs/month";q=10`.
func appendPolicy(b []byte, c *quota.Charge) []byte {
	b = appendName(b, len(b) > 0, c)
	b = append(b, ";q="...)
	b = appendInteger(b, c.Limit.Max)
	if c.Key.Space == quota.SpaceRate {
		b = append(b, ";w="...)
		b = appendInteger(b, wholeSeconds(c.Limit.Window))
	}
	return b
}

// appendLimit appends `"api";r=299;t=60`.
func appendLimit(b []byte, more bool, cs []quota.Charge, d *quota.Decision, i int, now time.Time) []byte {
	b = appendName(b, more, &cs[i])
	b = append(b, ";r="...)
	b = appendInteger(b, left(cs, d, i))
	if wait := reset(cs, d, i, now); wait >= 0 {
		b = append(b, ";t="...)
		b = appendInteger(b, wholeSeconds(wait))
	}
	return b
}

// appendName appends the policy's name as a string of RFC 9651, after a comma if there are more.
func appendName(b []byte, more bool, c *quota.Charge) []byte {
	if more {
		b = append(b, ", "...)
	}
	b = append(b, '"')
	from := len(b)
	b = c.AppendPolicy(b)
	for i := from; i < len(b); i++ {
		// Names hold none of these (quota.ValidName); a field that does not parse
		// would take all others with it.
		if b[i] < 0x20 || b[i] > 0x7e || b[i] == '"' || b[i] == '\\' {
			b[i] = '_'
		}
	}
	return append(b, '"')
}

func appendInteger(b []byte, n int64) []byte { return strconv.AppendInt(b, min(n, maxInteger), 10) }

// wholeSeconds is d in seconds, rounded up, at least 1: a client that waits
// that long has waited enough.
func wholeSeconds(d time.Duration) int64 {
	s := int64(d / time.Second)
	if d%time.Second > 0 {
		s++
	}
	return max(1, s)
}

// ceilUnix is t in Unix seconds, rounded up.
func ceilUnix(t time.Time) int64 {
	if t.Nanosecond() > 0 {
		return t.Unix() + 1
	}
	return t.Unix()
}
