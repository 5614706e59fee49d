package store_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
	"pgregory.net/rapid"
)

const people = `CREATE TABLE public.users (id INTEGER PRIMARY KEY, email TEXT, username TEXT, status TEXT, created_at TIMESTAMP);
	INSERT INTO public.users VALUES
		(1, 'ann@x.org', 'Ann', 'active', '2026-01-01 00:00:00'), (2, 'bob@x.org', 'bob', 'active', '2026-01-02 00:00:00'),
		(3, 'c_d@x.org', NULL, 'Suspended', '2026-01-02 00:00:00'), (4, NULL, '100%', NULL, NULL),
		(5, 'cxd@x.org', 'eve', 'pending', '2026-01-05 00:00:00.5'), (6, NULL, NULL, 'deleted', NULL), (10, 'ann@x.org', 'ten', 'active', '2026-01-02 00:00:00')`

// ids are the ids of the users of a whole list, page by page.
func (h *hosted) ids(f store.UserFilter, p store.UserPage) string {
	h.Helper()
	var all []string
	for {
		got, err := h.store.ListUsers(h.Context(), f, p)
		if err != nil {
			h.Fatal(err)
		}
		for _, u := range got.Users {
			all = append(all, u.ID)
		}
		if got.Next == "" {
			return strings.Join(all, " ")
		}
		if len(got.Users) != p.Limit {
			h.Fatalf("a page of %d users that is not the last", len(got.Users))
		}
		p.After, p.Skip = got.Next, 0
	}
}

func TestDirectoryPages(t *testing.T) {
	t.Parallel()
	onBoth(t, people, func(h *hosted) {
		for sort, want := range map[string]string{
			"id": "1 2 3 4 5 6 10", "-id": "10 6 5 4 3 2 1", "email": "1 10 2 3 5 4 6", "-email": "5 3 2 10 1 6 4",
			"created_at": "1 2 3 10 5 4 6", "": "5 10 3 2 1 6 4", "-username": "10 5 2 1 4 6 3",
		} {
			for _, limit := range []int{1, 2, 3, 7, 50} {
				if got := h.ids(store.UserFilter{}, store.UserPage{Sort: sort, Limit: limit}); got != want {
					h.Errorf("by %q, %d at once: %s, want %s", sort, limit, got, want)
				}
			}
		}
		got, err := h.store.ListUsers(h.Context(), store.UserFilter{}, store.UserPage{Sort: "id", Skip: 5, Limit: 1})
		if err != nil || got.Total != 7 || got.Users[0].ID != "6" {
			h.Errorf("%+v, %v", got, err)
		}
		if got, err := h.store.ListUsers(h.Context(), store.UserFilter{}, store.UserPage{NoTotal: true, Skip: 100}); err != nil || got.Total != -1 || len(got.Users) != 0 {
			h.Errorf("%+v, %v", got, err)
		}
		other, err := h.store.ListUsers(h.Context(), store.UserFilter{}, store.UserPage{Sort: "email", Limit: 1})
		if err != nil {
			h.Fatal(err)
		}
		for _, bad := range []store.UserPage{
			{Limit: -1}, {Limit: 201}, {Skip: -1}, {Sort: "password"}, {Sort: "--id"}, {After: "x"}, {After: "e30"},
			{Sort: "id", After: "eyJzIjoiaWQiLCJpIjoiXHUwMDAwIn0"}, {Sort: "email", After: "eyJzIjoiZW1haWwiLCJpIjoiMSIsInYiOiJcdTAwMDAifQ"},
			{Sort: "id", After: other.Next}, {Sort: "email", After: other.Next, Skip: 1}, {Sort: "id", After: "eyJzIjoiaWQiLCJpIjoieCJ9"},
		} {
			var invalid *store.InvalidError
			if _, err := h.store.ListUsers(h.Context(), store.UserFilter{}, bad); !errors.As(err, &invalid) {
				h.Errorf("%+v: %v", bad, err)
			}
		}
	})
}

func TestDirectoryFilters(t *testing.T) {
	t.Parallel()
	onBoth(t, people, func(h *hosted) {
		ctx := h.Context()
		// By hand: the host's own words stay as they are.
		h.exec("INSERT INTO user_controls (user_id, state) VALUES ('1', 'suspended'), ('10', 'deleted')")
		h.exec("INSERT INTO user_controls (user_id, state, until) VALUES ('5', 'suspended', '2026-03-15 13:00:00.000000Z')")
		if _, err := h.store.Upgrade(ctx, "user:2", store.Grant{Plan: "pro", Duration: time.Hour}); err != nil {
			h.Fatal(err)
		}
		if _, err := h.store.GrantAdmin(ctx, "2", store.Actor{Type: store.ActorCLI}); err != nil {
			h.Fatal(err)
		}
		check := func(f store.UserFilter, want string) {
			h.Helper()
			if got := h.ids(f, store.UserPage{Sort: "id"}); got != want {
				h.Errorf("%+v: %s, want %s", f, got, want)
			}
			l, err := h.store.ListUsers(ctx, f, store.UserPage{Limit: 1})
			if err != nil || int(l.Total) != len(strings.Fields(want)) {
				h.Errorf("%+v: %+v, %v", f, l, err)
			}
		}
		for _, text := range []string{"\x00", "a\x00b", "\xff"} {
			for _, f := range []store.UserFilter{{Search: text}, {Status: text}, {Plan: text}} {
				var invalid *store.InvalidError
				if _, err := h.store.ListUsers(ctx, f, store.UserPage{}); !errors.As(err, &invalid) {
					h.Errorf("%q: %v", f, err)
				}
			}
		}
		check(store.UserFilter{Search: "ANN"}, "1 10")
		check(store.UserFilter{Search: "c_d"}, "3")
		check(store.UserFilter{Search: "%"}, "4")
		check(store.UserFilter{Search: "1"}, "1 4")
		check(store.UserFilter{Search: `'"\;--`}, "")
		check(store.UserFilter{Status: "suspended"}, "1 3 5")
		check(store.UserFilter{Status: "Deleted"}, "6 10")
		check(store.UserFilter{Status: "active"}, "2 4")
		check(store.UserFilter{Plan: "pro"}, "2")
		check(store.UserFilter{Plan: "free"}, "1 3 4 5 6 10")
		check(store.UserFilter{Plan: "none"}, "")
		check(store.UserFilter{Plan: "free", Status: "active", Search: "100"}, "4")
		bob, err := h.store.User(ctx, "2")
		if err != nil {
			h.Fatal(err)
		}
		mail, name, status := "bob@x.org", "bob", "active"
		if diff := cmp.Diff(&store.DirectoryUser{
			ID: "2", Email: &mail, Username: &name, HostStatus: &status, Status: "active", Superadmin: true, Plan: "pro",
			Subscription: quota.StatusActive, CreatedAt: time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC),
		}, bob); diff != "" {
			h.Errorf("bob:\n%s", diff)
		}
		h.clock.Add(time.Hour)
		check(store.UserFilter{Plan: "pro"}, "")
		check(store.UserFilter{Status: "suspended"}, "1 3")
		check(store.UserFilter{Status: "pending"}, "5")
		for _, id := range []string{"7", "x", "", "01"} {
			if u, err := h.store.User(ctx, id); !errors.Is(err, store.ErrUserNotFound) {
				h.Errorf("%q: %+v, %v", id, u, err)
			}
		}
	})
}

// Without a table of the host's, the callers that tokens have named are the directory.
func TestDirectoryOfCallers(t *testing.T) {
	t.Parallel()
	onBoth(t, "SELECT 1", func(h *hosted) {
		at := h.clock.Now().Add(-time.Hour)
		err := h.store.Flush(h.Context(), quota.Flush{EpochTotals: quota.EpochTotals{Epoch: "e"}, Seq: 1, Seen: []quota.Seen{
			{Account: "user:a", Email: "a@x", At: at}, {Account: "user:b", At: at}, {Account: "org:o", At: at},
		}})
		if err != nil {
			h.Fatal(err)
		}
		if got := h.ids(store.UserFilter{}, store.UserPage{Sort: "id", Limit: 1}); got != "a b" {
			h.Errorf("users %s", got)
		}
		if got := h.ids(store.UserFilter{Search: "@X"}, store.UserPage{}); got != "a" {
			h.Errorf("found %s", got)
		}
		u, err := h.store.User(h.Context(), "a")
		if err != nil || *u.Email != "a@x" || u.Username != nil || u.HostStatus != nil || u.Status != "active" || u.Plan != "free" || u.CreatedAt.IsZero() {
			h.Errorf("%+v, %v", u, err)
		}
		if s, err := h.store.UserSessions(h.Context(), "a"); err != nil || s != nil {
			h.Errorf("%v, %v", s, err)
		}
	})
}

// The filter by plan, in SQL, selects those of whom the list says that they have it.
func TestDirectoryPlanFilterIsTheJudgement(t *testing.T) {
	t.Parallel()
	onBoth(t, "CREATE TABLE public.users (id TEXT PRIMARY KEY)", func(h *hosted) {
		plans, err := h.store.ListPlans(h.Context(), store.PlanFilter{})
		if err != nil {
			h.Fatal(err)
		}
		now := h.clock.Now()
		rapid.Check(h.T, func(t *rapid.T) {
			h.exec("DELETE FROM subscriptions; DELETE FROM " + h.public("users"))
			moment := func(label string, null bool) string {
				hours := []string{"-200", "-1", "0", "1", "200"}
				if null {
					hours = append(hours, "NULL")
				}
				n := rapid.SampledFrom(hours).Draw(t, label)
				if n == "NULL" {
					return n
				}
				d, _ := time.ParseDuration(n + "h")
				return "'" + now.Add(d).Format("2006-01-02 15:04:05.000000Z") + "'"
			}
			plan := func(label string) string {
				n := rapid.IntRange(-1, len(plans)-1).Draw(t, label)
				if n < 0 {
					return "NULL"
				}
				return "'" + plans[n].ID + "'"
			}
			for i := range rapid.IntRange(1, 6).Draw(t, "users") {
				status := rapid.SampledFrom([]string{"active", "trial", "past_due", "cancelled", "expired"}).Draw(t, "status")
				h.exec(fmt.Sprintf("INSERT INTO %s VALUES ('u%d')", h.public("users"), i))
				h.exec(fmt.Sprintf(`INSERT INTO subscriptions (account_id, plan_id, source, status, trial_end, past_due_since, current_period_end, cancel_at_period_end,
					ended_at, pending_plan_id, pending_effective_at, pending_period_end) VALUES ('u%d', %s, '%s', '%s', %s, %s, %s, %t, %s, %s, %s, %s)`,
					i, plan("plan"), rapid.SampledFrom([]string{"manual", "stripe", "trial"}).Draw(t, "source"), status,
					moment("trial_end", status != "trial"), moment("past_due_since", status != "past_due"), moment("period_end", true),
					rapid.Bool().Draw(t, "cancels"), moment("ended_at", true), plan("pending"), moment("pending_at", false), moment("pending_end", true)))
			}
			all, err := h.store.ListUsers(h.Context(), store.UserFilter{}, store.UserPage{Sort: "id"})
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range plans {
				var want []string
				for _, u := range all.Users {
					if u.Plan == p.Plan.Name {
						want = append(want, u.ID)
					}
				}
				if got := h.ids(store.UserFilter{Plan: p.Plan.Name}, store.UserPage{Sort: "id"}); got != strings.Join(want, " ") {
					t.Fatalf("%s: %s, want %v", p.Plan.Name, got, want)
				}
			}
		})
	})
}

// Where no value is missing the list goes on by an index, and finds the same.
func TestDirectoryPagesWhereNothingIsNull(t *testing.T) {
	t.Parallel()
	ddl := strings.Replace(people, "created_at TIMESTAMP", "created_at TIMESTAMP NOT NULL DEFAULT '2026-01-03 00:00:00'", 1)
	ddl = strings.NewReplacer("email TEXT", "email TEXT NOT NULL", "NULL, NULL)", "NULL, '2026-01-03 00:00:00')",
		"'deleted', NULL)", "'deleted', '2026-01-03 00:00:00')", "(4, NULL", "(4, 'd'", "(6, NULL", "(6, 'e'").Replace(ddl)
	onBoth(t, ddl, func(h *hosted) {
		for sort, want := range map[string]string{
			"email": "1 10 2 3 5 4 6", "-email": "6 4 5 3 2 10 1", "created_at": "1 2 3 10 4 6 5", "-created_at": "5 6 4 10 3 2 1",
		} {
			for _, limit := range []int{1, 2, 3, 50} {
				if got := h.ids(store.UserFilter{}, store.UserPage{Sort: sort, Limit: limit}); got != want {
					h.Errorf("by %q, %d at once: %s, want %s", sort, limit, got, want)
				}
			}
		}
		if got := h.ids(store.UserFilter{Status: "active"}, store.UserPage{Limit: 1}); got != "4 10 2 1" {
			h.Errorf("active: %s", got)
		}
		for name, p := range map[string]store.UserPage{"first": {Limit: 2}, "behind the end": {Skip: 100}} {
			got, err := h.store.ListUsers(h.Context(), store.UserFilter{Search: "@x.org"}, p)
			if err != nil || got.Total != 5 || len(got.Users) != p.Limit {
				h.Errorf("%s: %d of %d, %v", name, len(got.Users), got.Total, err)
			}
		}
		first, err := h.store.ListUsers(h.Context(), store.UserFilter{Search: "@x.org"}, store.UserPage{Limit: 2})
		if err != nil {
			h.Fatal(err)
		}
		if got, err := h.store.ListUsers(h.Context(), store.UserFilter{Search: "@x.org"}, store.UserPage{After: first.Next}); err != nil || got.Total != 5 {
			h.Errorf("the second page: %+v, %v", got, err)
		}
	})
}

// One column of the host may be several of ours.
func TestDirectoryOfAColumnWithTwoNames(t *testing.T) {
	t.Parallel()
	onBoth(t, "CREATE TABLE public.users (id TEXT PRIMARY KEY, login TEXT NOT NULL); INSERT INTO public.users VALUES ('1', 'ann'), ('2', 'bob')", func(h *hosted) {
		h.store.SetHost(store.HostOptions{Users: &store.HostTable{Table: "users", Columns: map[string]string{"email": "login", "username": "login"}}})
		if got := h.ids(store.UserFilter{Search: "o"}, store.UserPage{Sort: "email"}); got != "2" {
			h.Errorf("found %s", got)
		}
	})
}
