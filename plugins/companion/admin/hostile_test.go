package admin

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
	"github.com/quotagate/quotagate/caddymodule/store"
)

// requests are good ones, of each operation that takes something: each value in
// them is replaced by bad ones.
var requests = []struct{ method, target, body string }{
	{"GET", "/v1/admin/users?search=ann&status=active&plan=free&sort=-created_at&limit=5&skip=1", ""},
	{"GET", "/v1/admin/users?sort=created_at&limit=1&cursor=CURSOR", ""},
	{"GET", "/v1/admin/users/42", ""},
	{"PATCH", "/v1/admin/users/42", `{"status": "active", "plan_name": "pro", "duration_days": 30, "force": true, "reason": "x"}`},
	{"DELETE", "/v1/admin/users/7", ""},
	{"POST", "/v1/admin/users/7/restore", `{"reason": "x"}`},
	{"POST", "/v1/admin/users/42/revoke-sessions", `{"reason": "x"}`},
	{"POST", "/v1/admin/users/42/clear-rate-limits", `{"scopes": ["api"], "reason": "x"}`},
	{"POST", "/v1/admin/users/bulk", `{"ids": ["42"], "action": "change_plan", "plan_name": "pro", "duration_days": 3, "reason": "x", "dry_run": true}`},
	{"POST", "/v1/admin/users/bulk", `{"filter": {"search": "ann", "status": "active", "plan": "pro"}, "action": "suspend", "reason": "x"}`},
	{"GET", "/v1/admin/plans/PLAN", ""},
	{"PATCH", "/v1/admin/plans/PLAN", `{"display_name": "Pro", "description": "x", "tier": 10, "trial_days": 3, "features": {"f": true}, "rate_limit_multiplier": 5,
		"rate_limits": {"api": {"requests": 300, "window": 60}}, "quotas": [{"metric": "jobs", "limit": 5, "period": "month", "exceeded_status": 402}],
		"prices": [{"interval": "month", "currency": "usd", "unit_amount": 1, "stripe_lookup_key": "k", "stripe_price_id": "p"}], "reason": "x"}`},
	{"POST", "/v1/admin/plans", `{"name": "new", "rate_limit_multiplier": 1}`},
	{"GET", "/v1/admin/accounts/42/overrides", ""},
	{"POST", "/v1/admin/accounts/42/overrides", `{"metric": "jobs", "mode": "set", "limit": 5, "starts_at": "2026-03-16T00:00:00Z", "expires_at": "2026-03-17T00:00:00Z", "reason": "x"}`},
	{"POST", "/v1/admin/accounts/42/overrides", `{"scope": "api", "requests": 5, "window": 60, "reason": "x"}`},
	{"DELETE", "/v1/admin/accounts/42/overrides/x", ""},
	{"POST", "/v1/admin/accounts/42/usage/adjust", `{"metric": "jobs", "delta": 1, "period": "month", "reason": "x"}`},
	{"PUT", "/v1/admin/accounts/42/usage/storage_bytes", `{"value": 5, "measured_at": "2026-03-15T00:00:00Z", "reason": "x"}`},
	{"GET", "/v1/admin/analytics/series?metric=jobs&account_id=42&from=2026-03-14&to=2026-03-15&granularity=day&format=csv", ""},
	{"GET", "/v1/admin/analytics/top?metric=jobs&by=used&limit=3&from=2026-03-14", ""},
	{"GET", "/v1/admin/analytics/export?metric=jobs&account_id=42&from=2026-03-14&limit=3&cursor=e30", ""},
	{"GET", "/v1/admin/audit-log?user_id=42&action=a&from=2026-03-14&to=2026-03-15&limit=3&skip=1&format=csv", ""},
	{"GET", "/v1/admin/audit-log?cursor=5", ""},
}

// bad are values as they stand in a body of JSON, or without quotes anywhere else.
func bad() []string {
	long, err := json.Marshal(strings.Repeat("\u00fc%_'", 5000))
	if err != nil {
		panic(err)
	}
	return []string{
		`"\u0000"`, `"a\u0000b"`, `"\ud800"`, "\"\xff\"", `""`, `" "`, `"%"`, `"\\"`, `"' OR '1'='1' --"`, `"\u202e\ufb00\u0130\u212a"`, string(long),
		`-1`, `0`, `0.5`, `1e308`, `9007199254740993`, `9223372036854775807`, `-9223372036854775808`, `92233720368547758080`,
		`"0000-01-01T00:00:00Z"`, `"0001-01-01T00:00:00Z"`, `"9999-12-31T23:59:59-23:59"`, `"2026-03-15T12:00:00.9999999999+14:00"`, `"294277-01-01T00:00:00Z"`,
		`null`, `true`, `[]`, `{}`, `[null]`, `{"a": null}`,
		// Cursors with nothing, a text and another type behind them.
		`"eyJzIjoiY3JlYXRlZF9hdCIsImkiOiI0MiIsInYiOm51bGx9"`, `"eyJzIjoiY3JlYXRlZF9hdCIsImkiOiI0MiIsInYiOiJ4In0"`,
		`"eyJzIjoiY3JlYXRlZF9hdCIsImkiOiI0MiIsInYiOiIyOTQyNzctMDEtMDEifQ"`, `"eyJTdGF0dXNDbGFzcyI6OTIyMzM3MjAzNjg1NDc3NTgwNywiQnVja2V0IjoiMjAyNi0wMy0xNFQwMDowMDowMFoifQ"`,
	}
}

// Whatever is asked for, an admin is told what is wrong with it; it is never
// ourselves who fail, on neither engine.
func TestBadInputIsTheClientsFault(t *testing.T) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		f := start(t)
		f.host()
		f.badInput()
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		f := startOn(t, gatetest.Postgres(t).Open(t, store.Schema), store.Postgres)
		f.exec(`CREATE TYPE public.status AS ENUM ('active', 'suspended', 'deleted')`)
		f.exec(`CREATE TABLE public.users (id INT PRIMARY KEY, email VARCHAR(100) UNIQUE, username TEXT, status public.status NOT NULL, created_at TIMESTAMP)`)
		f.exec(`INSERT INTO public.users VALUES (42, 'ann@example.com', 'ann', 'active', '2026-01-01'), (7, 'bob@example.com', 'bob', 'active', NULL)`)
		f.exec(`CREATE TABLE public.sessions (id UUID PRIMARY KEY, user_id INT, revoked_at TIMESTAMPTZ)`)
		f.badInput()
	})
}

func (f *fixture) badInput() {
	f.Helper()
	plan := fmt.Sprint(f.plan("pro")["id"])
	list := f.do("GET", "/v1/admin/users?sort=created_at&limit=1", "").want(200).json()
	// Each value meets some of the places, in a long run all.
	turn, some := 0, 9
	if os.Getenv("QUOTA_TEST_LONG") != "" {
		some = 1
	}
	try := func(method, target, body string) {
		f.Helper()
		if turn++; turn%some == 0 {
			f.notOurs(method, target, body)
		}
	}
	replace := strings.NewReplacer("PLAN", plan, "CURSOR", fmt.Sprint(list["next_cursor"]))
	for _, r := range requests {
		target := replace.Replace(r.target)
		f.notOurs(r.method, target, r.body)
		for _, b := range targets(target) {
			try(r.method, b, r.body)
		}
		if r.body == "" {
			continue
		}
		var document any
		if err := json.Unmarshal([]byte(r.body), &document); err != nil {
			f.Fatal(err)
		}
		for _, b := range bodies(document) {
			try(r.method, target, b)
		}
	}
	for _, e := range f.log.FilterMessage("answering failed").All() {
		f.Errorf("logged: %v", e.ContextMap())
	}
	head, err := f.store.AuditHead(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	if _, err := f.store.VerifyAudit(f.Context(), &head); err != nil {
		f.Error(err)
	}
}

// notOurs fails unless a request is answered, or refused in FastAPI's shape.
func (f *fixture) notOurs(method, target, body string) {
	f.Helper()
	r := f.do(method, target, body)
	var v struct{ Detail any }
	switch {
	case r.Code < 400 || r.Code == passedOn: // a path of nobody's
	case r.Code >= 500:
		f.Errorf("%s %.200q %.300q: %d %s", method, target, body, r.Code, r.Body)
	case json.Unmarshal(r.Body.Bytes(), &v) != nil || v.Detail == nil:
		f.Errorf("%s %.200q %.300q: %d with %q", method, target, body, r.Code, r.Body)
	}
}

// targets are the target with each of its values replaced.
func targets(target string) []string {
	path, query, _ := strings.Cut(target, "?")
	var out []string
	for _, b := range bad() {
		text := b
		_ = json.Unmarshal([]byte(b), &text) // a number or the like stands as it is
		segments := strings.Split(path, "/")
		for i := 4; i < len(segments); i++ {
			changed := slices.Clone(segments)
			changed[i] = url.PathEscape(text)
			out = append(out, strings.Join(changed, "/")+"?"+query)
		}
		values, err := url.ParseQuery(query)
		if err != nil {
			panic(err)
		}
		for name := range values {
			changed := maps.Clone(values)
			changed[name] = []string{text}
			out = append(out, path+"?"+changed.Encode())
		}
	}
	return out
}

// bodies are the document with each of its values replaced.
func bodies(document any) []string {
	const hole = "\"the value that is replaced\""
	var out []string
	var walk func(v any, put func(any))
	walk = func(v any, put func(any)) {
		put(json.RawMessage(hole))
		text, err := json.Marshal(document)
		if err != nil {
			panic(err)
		}
		for _, b := range bad() {
			out = append(out, strings.Replace(string(text), hole, b, 1))
		}
		put(v)
		switch v := v.(type) {
		case map[string]any:
			for name := range v {
				walk(v[name], func(x any) { v[name] = x })
			}
		case []any:
			for i := range v {
				walk(v[i], func(x any) { v[i] = x })
			}
		}
	}
	walk(document, func(x any) { document = x })
	return out
}

// A member in other letters is another member: it passes by no rule of the one
// that it is decoded into.
func TestMembersInOtherLetters(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.host()
	for _, r := range []struct{ method, path, body string }{
		{http.MethodPost, "/v1/admin/users/bulk", `{"ids": ["42"], "action": "suspend", "ACTION": "delete", "reason": "x"}`},
		{http.MethodPatch, "/v1/admin/users/42", `{"STATUS": "suspended"}`},
		{http.MethodPatch, "/v1/admin/users/42", `{"plan_name": "pro", "duration_days": 5, "Duration_Days": 36600}`},
		{http.MethodPatch, "/v1/admin/users/42", `{"status": "active", "\u017ftatus": "suspended"}`},
		{http.MethodPost, "/v1/admin/accounts/42/overrides", `{"metric": "jobs", "mode": "set", "limit": 1, "Mode": "none"}`},
		{http.MethodPost, "/v1/admin/plans", `{"name": "x", "rate_limit_multiplier": 1, "quotas": [{"metric": "jobs", "limit": 1, "period": "month", "exceeded_status": 402, "Exceeded_Status": 200}]}`},
	} {
		if w := f.do(r.method, r.path, r.body); w.Code != http.StatusUnprocessableEntity || !strings.Contains(w.Body.String(), "unexpected property") {
			t.Errorf("%s: %d %s", r.body, w.Code, w.Body)
		}
	}
	if got := f.audited(); len(got) != 0 {
		t.Errorf("audited %v", got)
	}
}

// What is wrong is said where it is, as FastAPI says it.
func TestWhereInputIsWrong(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.host()
	for _, c := range []struct{ method, path, body, detail string }{
		{
			http.MethodPost, "/v1/admin/plans", `{"name": "x", "rate_limit_multiplier": 1, "quotas": [{"metric": "jobs", "limit": 1, "period": "month", "exceeded_status": 402}, {"metric": "", "limit": 1, "period": "day", "exceeded_status": 402}]}`,
			`[{"loc":["body","quotas",1,"metric"],"msg":"expected length >= 1","type":"value_error"}]`,
		},
		{http.MethodPatch, "/v1/admin/users/42", `{"plan_name": "pro", "duration_days": 1e2}`, `[{"loc":["body","duration_days"],"msg":"cannot take a number 1e2","type":"value_error"}]`},
		{http.MethodPost, "/v1/admin/users/bulk", `{"ids": ["a", 1], "action": "suspend", "reason": "x"}`, `[{"loc":["body","ids",1],"msg":"expected string","type":"value_error"}]`},
		{http.MethodGet, "/v1/admin/users?limit=x", "", `[{"loc":["query","limit"],"msg":"invalid integer","type":"value_error"}]`},
	} {
		f.do(c.method, c.path, c.body).want(422).wantBody(`{"detail":` + c.detail + `}`)
	}
}
