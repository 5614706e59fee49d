package store_test

import (
	"testing"

	"github.com/quotagate/quotagate/caddymodule/store"
)

// What is looked for is text and nothing else: letters of any script, marks that
// join or reverse, and what SQL or patterns are made of.
func TestDirectorySearchesText(t *testing.T) {
	t.Parallel()
	onBoth(t, "CREATE TABLE public.users (id INTEGER PRIMARY KEY, email TEXT, username TEXT, status TEXT, created_at TIMESTAMP); "+
		"INSERT INTO public.users (id, email, username) VALUES (1, 'J\u00fcrgen@x.org', '\u0416\u0435\u043d\u044f'), (2, 'ju\u0308rgen@x.org', '\U0001f469\u200d\U0001f680'), "+
		"(3, 'a\\b@x.org', '\u202egnp'), (4, 'A--B@x.org', 'it''s'), (5, NULL, '\uff41\uff42') ", func(h *hosted) {
		for search, want := range map[string]string{
			"j\u00fcrgen": "1", "J\u00fcRGEN": "1", "ju\u0308": "2", "\u00fc": "1", "\u0308": "2", "\u0416\u0435": "1", "\U0001F469\u200d\U0001F680": "2", "\U0001F680": "2",
			`\`: "3", `A\B`: "3", `\\`: "", "\u202e": "3", "\u202eGNP": "3", "--": "4", "IT'S": "4", "'": "4", "\uff41": "5", "ab": "", "*": "", "_": "", "%": "",
			"@X.ORG": "1 2 3 4",
		} {
			if got := h.ids(store.UserFilter{Search: search}, store.UserPage{Sort: "id"}); got != want {
				h.Errorf("%q: %s, want %s", search, got, want)
			}
		}
	})
}

// A host may have addresses that are equal in any case by their collation, in which
// Postgres looks for no part.
func TestDirectorySearchesFoldingColumns(t *testing.T) {
	t.Parallel()
	h := newHosted(t, store.Postgres, `CREATE COLLATION public.folding (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
		CREATE TABLE public.users (id INTEGER PRIMARY KEY, email VARCHAR(100) COLLATE public.folding UNIQUE, username TEXT, status TEXT, created_at TIMESTAMP);
		INSERT INTO public.users (id, email) VALUES (1, 'Ann@x.org'), (2, 'bob@x.org'), (3, 'cy_@x.org')`)
	for search, want := range map[string]string{"ANN@": "1", "x.org": "1 2 3", "_": "3", "nobody": ""} {
		if got := h.ids(store.UserFilter{Search: search}, store.UserPage{Sort: "id", Limit: 1}); got != want {
			h.Errorf("%q: %s, want %s", search, got, want)
		}
	}
	if got := h.ids(store.UserFilter{}, store.UserPage{Sort: "-email", Limit: 1}); got != "3 2 1" {
		h.Errorf("by e-mail: %s", got)
	}
}
