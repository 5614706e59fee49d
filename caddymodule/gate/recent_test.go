package gate

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

// An entry that has left the cache is not told of changes, and must not be used on.
func TestRecentEntryLeavesTheCache(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	for name, leave := range map[string]func(){
		"dropped":  func() { h.rt.Entitlements.cache.Invalidate(alice) },
		"replaced": func() { h.rt.Entitlements.cache.Set(alice, &entry{}) },
	} {
		before := h.get(t, alice)
		if h.get(t, alice) != before {
			t.Fatalf("%s: another entitlement of an unchanged account", name)
		}
		leave()
		h.rt.Entitlements.cache.Invalidate(alice)
		h.records.change(alice, func(e *quota.Entitlement) { e.Control = quota.ControlSuspended })
		if e := h.get(t, alice); e.Version <= before.Version {
			t.Errorf("%s: an entitlement of version %d is used on", name, e.Version)
		}
	}
}

// The cache is asked now and then for a caller who comes all the time, or it
// would take the account for one that is not needed.
func TestRecentCallersKeepTheirEntries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.get(t, alice)
		h.get(t, alice)
		p, _ := h.principals.Load(alice)
		slot := h.rt.Entitlements.recent.slot(p.(*quota.Principal))
		first := slot.Load()
		for range 4 {
			time.Sleep(recentFor / 4)
			h.get(t, alice)
		}
		if again := slot.Load(); again == first || again.entry != first.entry {
			t.Errorf("after %v the cache was not asked again", recentFor)
		}
	})
}
