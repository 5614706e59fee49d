package gatetest

import (
	"errors"
	"sync"
	"time"

	"github.com/quotagate/quotagate/caddymodule/store"
)

// page is a session of alice's that was opened.
func (t *storeTest) page(id string) store.CheckoutSession {
	t.Helper()
	plan, err := t.store.PlanByName(t.Context(), "pro")
	t.ok(err)
	return store.CheckoutSession{
		ID: id, Account: alice, Customer: "cus_1", PlanID: plan.ID, Price: "pro_monthly", Quantity: 1, URL: "https://pay/" + id, CreatedBy: "alice",
		ExpiresAt: t.clock.Now().Add(time.Hour),
	}
}

// wantPage checks which session is the account's, and whether it is open.
func (t *storeTest) wantPage(id string, open bool) {
	t.Helper()
	c, err := t.store.LastCheckout(t.Context(), alice)
	if err != nil || c == nil || c.ID != id || c.Open != open || c.Customer != "cus_1" {
		t.Errorf("%+v, %v; want %s, open: %v", c, err, id, open)
	}
}

func testCheckouts(t *storeTest) {
	ctx := t.Context()
	if c, err := t.store.LastCheckout(ctx, alice); err != nil || c != nil {
		t.Errorf("%+v, %v", c, err)
	}
	t.ok(t.store.SaveCheckout(ctx, t.page("cs_1"), ""))
	t.ok(t.store.SaveCheckout(ctx, t.page("cs_1"), "")) // a double click
	t.wantPage("cs_1", true)
	t.ok(t.store.SaveCheckout(ctx, t.page("cs_2"), "cs_1"))
	t.wantPage("cs_2", true)
	for _, after := range []string{"", "cs_1", "cs_9"} { // another tab was quicker
		if err := t.store.SaveCheckout(ctx, t.page("cs_3"), after); !errors.Is(err, store.ErrCheckoutRaced) {
			t.Errorf("after %q: %v", after, err)
		}
	}
	t.wantPage("cs_2", true)
	for id, want := range map[string]bool{"cs_1": true, "cs_2": true, "cs_3": false} {
		if own, err := t.store.HasCheckout(ctx, alice, id); err != nil || own != want {
			t.Errorf("%s is alice's: %v, %v", id, own, err)
		}
		if own, err := t.store.HasCheckout(ctx, "user:bob", id); err != nil || own {
			t.Errorf("%s is bob's: %v, %v", id, own, err)
		}
	}
	t.ok(t.store.CloseCheckout(ctx, "cs_2"))
	t.wantPage("cs_2", false)
	t.ok(t.store.SaveCheckout(ctx, t.page("cs_3"), "cs_2"))
	t.wantPage("cs_3", true)
	t.clock.Add(-time.Minute) // by a clock that goes wrong
	t.ok(t.store.SaveCheckout(ctx, t.page("cs_0"), "cs_3"))
	t.wantPage("cs_0", true)
	t.ok(t.store.CloseCheckout(ctx, "cs_0"))
	t.wantPage("cs_0", false)
}

// A user who was deleted while his page was opened has none, and the one that was
// open stays so until it is closed at the provider.
func testCheckoutOfDeletedUser(t *storeTest) {
	t.ok(t.store.SaveCheckout(t.Context(), t.page("cs_1"), ""))
	_, err := t.store.RemoveUser(t.Context(), store.Actor{Type: store.ActorCLI}, "alice", store.Removal{})
	t.ok(err)
	if err := t.store.SaveCheckout(t.Context(), t.page("cs_2"), "cs_1"); !errors.Is(err, store.ErrUserDeleted) {
		t.Errorf("saved: %v", err)
	}
	t.wantPage("cs_1", true)
}

// Of several that are opened at once, one is kept.
func testCheckoutRace(t *storeTest) {
	pages := []store.CheckoutSession{t.page("cs_1"), t.page("cs_2"), t.page("cs_3"), t.page("cs_4")}
	var mu sync.Mutex
	kept := 0
	var all sync.WaitGroup
	for _, p := range pages {
		all.Go(func() {
			err := t.store.SaveCheckout(t.Context(), p, "")
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				kept++
			} else if !errors.Is(err, store.ErrCheckoutRaced) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := t.number("SELECT COUNT(*) FROM checkout_sessions WHERE closed_at IS NULL"); n != 1 || kept != 1 {
		t.Errorf("%d kept, %d open", kept, n)
	}
}
