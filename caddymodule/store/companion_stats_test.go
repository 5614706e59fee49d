package store_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
)

// Where the host has users, they are the ones who are counted, by its word and ours.
func TestStatsOfAHost(t *testing.T) {
	t.Parallel()
	onBoth(t, `CREATE TABLE public.users (id INTEGER PRIMARY KEY, status TEXT);
		INSERT INTO public.users VALUES (1, 'active'), (2, 'Active'), (3, 'pending'), (4, NULL), (5, 'active'), (6, 'suspended'), (7, 'active')`, func(h *hosted) {
		for _, id := range []string{"2", "5", "6", "stranger"} {
			if _, err := h.store.Upgrade(h.Context(), quota.UserSubject(id), store.Grant{Plan: "pro"}); err != nil {
				h.Fatal(err)
			}
		}
		// By hand: the host's own words stay as they are.
		h.exec("INSERT INTO user_controls (user_id, state) VALUES ('5', 'suspended'), ('7', 'deleted')")
		got, err := h.store.Stats(h.Context())
		want := &store.Stats{
			TotalUsers: 7, ActiveUsers: 3, DefaultPlan: "free", Monthly: map[string]int64{},
			ByPlan: map[string]int64{"free": 2, "pro": 1, "enterprise": 0}, // 1 and 4; 2
		}
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			h.Errorf("%v\n%s", err, diff)
		}
	})
}
