package column

import (
	"fmt"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestTimeScan(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	for _, tt := range []struct {
		src  any
		want time.Time
	}{
		{nil, time.Time{}},
		{at.In(time.FixedZone("x", 3600)), at},
		{at.Add(1999 * time.Nanosecond), at.Add(time.Microsecond)},
		{"2026-02-03 04:05:06.000000Z", at},
		{[]byte("2026-02-03 04:05:06"), at},
		{"2026-02-03 04:05:06.5", at.Add(500 * time.Millisecond)},
		{"2026-02-03T05:05:06+01:00", at},
		{"2026-02-03 04:05", at.Add(-6 * time.Second)},
		{"2026-02-03 04:05Z", at.Add(-6 * time.Second)},
		{"2026-02-03T05:05+01:00", at.Add(-6 * time.Second)},
		{"2026-02-03", at.Truncate(24 * time.Hour)},
	} {
		var got Time
		if err := got.Scan(tt.src); err != nil || !got.Equal(tt.want) {
			t.Errorf("%v: %s, %v, want %s", tt.src, got, err, tt.want)
		}
	}
	for _, bad := range []any{"", "tomorrow", "2026-13-01", 5, 1.5, true} {
		if err := new(Time).Scan(bad); err == nil {
			t.Errorf("%v was accepted", bad)
		}
	}
}

// Text order is time order, and writing loses nothing above a microsecond.
func TestTimeSorts(t *testing.T) {
	t.Parallel()
	instant := rapid.Custom(func(t *rapid.T) time.Time {
		return time.UnixMicro(rapid.Int64Range(-2e15, 2e17).Draw(t, "µs"))
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := instant.Draw(t, "a"), instant.Draw(t, "b")
		va, errA := At(a).Value()
		vb, errB := At(b).Value()
		if errA != nil || errB != nil || (va.(string) < vb.(string)) != a.Before(b) {
			t.Fatalf("%s and %s are %v and %v", a, b, va, vb)
		}
		var back Time
		if err := back.Scan(va); err != nil || !back.Equal(a) {
			t.Fatalf("%s came back as %s, %v", a, back, err)
		}
	})
	if v, err := (Time{}).Value(); v != nil || err != nil {
		t.Errorf("the zero time is %v, %v", v, err)
	}
}

func TestHundredths(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		src  any
		want Hundredths
	}{
		{int64(5), 500}, {int64(-1), NotHundredths}, {int64(math.MaxInt64), NotHundredths},
		{1.15, 115}, {0.01, 1}, {100.0, 10000}, {1.005, NotHundredths}, {-1.0, NotHundredths},
		{math.NaN(), NotHundredths}, {math.Inf(1), NotHundredths},
		{"5", 500}, {"5.5", 550}, {"1.15000", 115}, {[]byte("0.07"), 7}, {"007", 700},
		{"1.005", NotHundredths}, {"", NotHundredths}, {".5", NotHundredths}, {"NaN", NotHundredths}, {"-1", NotHundredths},
		{"1e3", NotHundredths}, {"+1", NotHundredths}, {"1.+5", NotHundredths}, {nil, NotHundredths}, {true, NotHundredths},
		{"99999999999999999999", NotHundredths},
	} {
		var got Hundredths
		if err := got.Scan(tt.src); err != nil || got != tt.want {
			t.Errorf("%v: %d, %v, want %d", tt.src, got, err, tt.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		h := Hundredths(rapid.Int64Range(0, 1<<40).Draw(t, "h"))
		v, err := h.Value()
		var back Hundredths
		if scan := back.Scan(v); err != nil || scan != nil || back != h {
			t.Fatalf("%d was written as %v and read as %d", h, v, back)
		}
	})
	if v, err := NotHundredths.Value(); err == nil {
		t.Errorf("written: %v", v)
	}
	if s := fmt.Sprint(Hundredths(5), NotHundredths); s != "0.05 invalid" {
		t.Error(s)
	}
}

func FuzzHundredths(f *testing.F) {
	for _, s := range []string{"1", "1.15", ".5", "NaN", "-0", "1e9"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h, err := ParseHundredths(s)
		if (err == nil) != (h >= 0) {
			t.Errorf("%q: %d, %v", s, h, err)
		}
	})
}

func FuzzTime(f *testing.F) {
	for _, s := range []string{Layout, "2026-02-03", "2026-02-03T05:05:06+01:00", "0000-00-00", "9999-12-31 23:59:59.999999Z"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var at, back Time
		if at.Scan(s) != nil || at.Year() < 0 || at.Year() > 9999 {
			return
		}
		v, err := at.Value()
		if err != nil || back.Scan(v) != nil || !back.Equal(at.Time) {
			t.Errorf("%q: %s came back as %s, %v", s, at, back, err)
		}
	})
}
