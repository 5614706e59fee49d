package stripefake

import (
	"net/url"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Billing periods follow each other without a gap, and end on the anchor's day,
// or on the month's last.
func TestPeriodsFollowEachOther(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		anchor := time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "anchor"), 0).UTC()
		interval := rapid.SampledFrom([]string{"day", "week", "month", "year"}).Draw(t, "interval")
		n := rapid.Int64Range(1, 3).Draw(t, "count")
		at := anchor.Unix()
		for range rapid.IntRange(1, 40).Draw(t, "periods") {
			end := nextBoundary(anchor.Unix(), at, interval, n)
			if end <= at {
				t.Fatalf("the period that begins %d ends %d", at, end)
			}
			for _, inside := range []int64{at + 1, (at + end) / 2, end - 1} {
				if inside > at && nextBoundary(anchor.Unix(), inside, interval, n) != end {
					t.Fatalf("%d lies in the period from %d to %d, and is told another end", inside, at, end)
				}
			}
			got := time.Unix(end, 0).UTC()
			if interval == "month" || interval == "year" {
				last := time.Date(got.Year(), got.Month()+1, 0, 0, 0, 0, 0, time.UTC).Day()
				if got.Day() != min(anchor.Day(), last) || got.Hour() != anchor.Hour() || got.Second() != anchor.Second() {
					t.Fatalf("anchored %s, a period ends %s", anchor, got)
				}
			}
			at = end
		}
		if before := nextBoundary(anchor.Unix(), anchor.Unix()-rapid.Int64Range(1, 1e9).Draw(t, "before"), interval, n); before != anchor.Unix() {
			t.Fatalf("before the anchor: %d", before)
		}
	})
}

// What is prorated adds up: what is given back and asked for of one price is nothing.
func TestProrationsCancelOut(t *testing.T) {
	t.Parallel()
	f, err := New(Options{Seed: "x", Start: time.Unix(1e9, 0)})
	if err != nil {
		t.Fatal(err)
	}
	m := f.state.Test
	of := m.newProduct(&product{Name: "P", Metadata: map[string]string{}})
	rapid.Check(t, func(t *rapid.T) {
		p := m.newPrice(&price{Product: of.ID, Currency: "usd", Amount: rapid.Int64Range(0, 1e12).Draw(t, "amount"), Interval: "month"})
		start := int64(1e9)
		length := rapid.Int64Range(1, 366*day).Draw(t, "length")
		s := &subscription{PeriodStart: start, PeriodEnd: start + length}
		items := []subItem{{ID: "si_x", Price: p.ID, Quantity: rapid.Int64Range(0, 1000).Draw(t, "quantity")}}
		at := start + rapid.Int64Range(0, length).Draw(t, "at")
		back, ask := sum(m.unused(s, items, at, s.PeriodEnd)), sum(m.remaining(s, items, at, s.PeriodEnd))
		full := p.Amount * items[0].Quantity
		if back != -ask || ask < 0 || ask > full {
			t.Fatalf("%d back, %d asked, of %d", back, ask, full)
		}
		if at == start && ask != full {
			t.Fatalf("at the start %d is asked of %d", ask, full)
		}
	})
}

// A form that is read, written and read again says the same.
func FuzzForm(f *testing.F) {
	for _, s := range []string{
		"", "a=b", "a[b]=c&a[d]=e", "items[0][price]=p&items[0][quantity]=2&items[1][price]=q", "expand[]=x&expand[]=y",
		"metadata=", "metadata[k]=%00", "a[=", "a]=b", "[a]=b", "a[b]c=d", "a=1&a[b]=2", "a[b]=1&a=2", "&&", "%zz=1", "a=%", "a[][b]=1",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, encoded string) {
		v, bad := parseForm(encoded)
		if bad != nil {
			if bad.Status != 400 || bad.Message == "" {
				t.Errorf("refused with %+v", bad)
			}
			return
		}
		again, bad := parseForm(v.encode("").Encode())
		if bad != nil {
			t.Fatalf("%q was read, and what it says is refused: %s", encoded, bad.Message)
		}
		if v.canonical() != again.canonical() {
			t.Errorf("%q says %s, then %s", encoded, v.canonical(), again.canonical())
		}
		v.unknown(map[string]bool{"a": true, "metadata.*": true, "items[].price": true})
	})
}

// encode writes a form anew, with all names spelt out.
func (v *values) encode(name string) url.Values {
	out := url.Values{}
	if v.isText {
		out.Set(name, v.text)
	}
	for _, member := range v.names {
		below := member
		if name != "" {
			below = name + "[" + member + "]"
		}
		for k, texts := range v.members[member].encode(below) {
			out[k] = texts
		}
	}
	return out
}
