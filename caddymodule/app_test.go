package caddymodule

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/google/go-cmp/cmp"
)

func TestAppDefaults(t *testing.T) {
	t.Parallel()
	a, err := provisioned(t, guests)
	if err != nil {
		t.Fatal(err)
	}
	type options struct {
		Entitlements                     Entitlements
		IPPrefix                         IPPrefix
		Plan, Outage, Upgrade, HostRedis string
		LogSubjects                      bool
		Verifiers                        int
	}
	want := options{
		Entitlements: Entitlements{TTL: caddy.Duration(time.Minute), Stale: caddy.Duration(10 * time.Minute), Grace: caddy.Duration(7 * 24 * time.Hour), Size: 100_000},
		IPPrefix:     IPPrefix{IPv4: 32, IPv6: 64}, Outage: "allow",
	}
	got := options{
		Entitlements: a.Entitlements, IPPrefix: a.IPPrefix, Plan: a.DefaultPlan, Outage: a.OnOutage,
		Upgrade: a.UpgradeURL, HostRedis: a.HostRedis, LogSubjects: a.LogSubjects, Verifiers: len(a.verifiers),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("after Provision (-want +got):\n%s", diff)
	}
	if a.records == nil || a.counters == nil {
		t.Errorf("records %v, counters %v: want both loaded", a.records, a.counters)
	}
}

// The default engines are modules like others: a build without them says so.
func TestAppDefaultEngines(t *testing.T) {
	t.Parallel()
	a := new(App)
	a.setDefaults()
	if got, want := string(a.RecordsRaw), `{"engine":"sqlite"}`; got != want {
		t.Errorf("records %s, want %s", got, want)
	}
	if got, want := string(a.CountersRaw), `{"engine":"memory"}`; got != want {
		t.Errorf("counters %s, want %s", got, want)
	}
}

func TestAppVerifiersKeepTheirOrder(t *testing.T) {
	t.Parallel()
	a, err := provisioned(t, guests+`,"verifiers":[{"kind":"configtest","args":["a"]},{"kind":"configtest","args":["b"]}]`)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, v := range a.verifiers {
		got = append(got, v.(*configVerifier).Args...)
	}
	if diff := cmp.Diff([]string{"a", "b"}, got); diff != "" {
		t.Errorf("verifiers (-want +got):\n%s", diff)
	}
}

func TestAppResolvesPlaceholders(t *testing.T) {
	t.Setenv("QUOTAGATE_TEST_PLAN", "gold")
	t.Setenv("QUOTAGATE_TEST_URL", "https://app.example.com")
	file := filepath.Join(t.TempDir(), "redis-url")
	if err := os.WriteFile(file, []byte("redis://:secret@localhost/1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := provisioned(t, guests+`,"default_plan":"{env.QUOTAGATE_TEST_PLAN}",
		"upgrade_url":"{env.QUOTAGATE_TEST_URL}/pricing","host_redis":"{file.`+file+`}"`)
	if err != nil {
		t.Fatal(err)
	}
	got := []string{a.DefaultPlan, a.UpgradeURL, a.HostRedis}
	want := []string{"gold", "https://app.example.com/pricing", "redis://:secret@localhost/1"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("resolved (-want +got):\n%s", diff)
	}
}

func TestAppRefuses(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, members, want string }{
		{"records unknown", `"records":{"engine":"mysql"}`, "this build has configtest"},
		{"counters unknown", `"records":{"engine":"configtest"},"counters":{"engine":"memcached"}`, "this build has configtest"},
		{"verifier unknown", guests + `,"verifiers":[{"kind":"oauth"}]`, "this build has configstranger, configtest"},
		{"verifier of another kind", guests + `,"verifiers":[{"kind":"configstranger"}]`, "is not a gate.Verifier"},
		{"member unknown", guests + `,"limits":1`, "limits"},
		{"ttl", guests + `,"entitlements":{"ttl":-1}`, "entitlements.ttl: -1ns is not above 0"},
		{"stale", guests + `,"entitlements":{"stale":-1}`, "entitlements.stale: "},
		{"size", guests + `,"entitlements":{"size":10000001}`, "entitlements.size: 10000001 is outside 1..10000000"},
		{"size negative", guests + `,"entitlements":{"size":-1}`, "entitlements.size: "},
		{"default plan", guests + `,"default_plan":"Free"`, "default_plan: "},
		{"IPv4", guests + `,"ip_prefix":{"ipv4":33}`, "ip_prefix.ipv4: 33 is outside 1..32"},
		{"IPv6", guests + `,"ip_prefix":{"ipv6":-1}`, "ip_prefix.ipv6: -1 is outside 1..128"},
		{"upgrade URL", guests + `,"upgrade_url":"javascript:alert(1)"`, "upgrade_url: "},
		{"upgrade URL without a host", guests + `,"upgrade_url":"https:///pricing"`, "upgrade_url: "},
		{"upgrade URL with a break", guests + `,"upgrade_url":"/pricing\nX: y"`, "upgrade_url: "},
		{"outage", guests + `,"on_outage":"wait"`, "on_outage: "},
		{"host without a table", guests + `,"host":{"users":{}}`, "host.users: "},
		{"host table", guests + `,"host":{"sessions":{"table":"a..b"}}`, "host.sessions: "},
		{"host column", guests + `,"host":{"users":{"table":"users","columns":{"password":"x"}}}`, `our column "password"`},
		{"host column empty", guests + `,"host":{"users":{"table":"users","columns":{"id":""}}}`, "host.users: "},
		{"host redis", guests + `,"host_redis":"http://localhost"`, "host_redis: not a Redis URL"},
		{"environment missing", guests + `,"host_redis":"{env.QUOTAGATE_TEST_UNSET}"`, "resolving host_redis: "},
		{"environment missing by name", guests + `,"upgrade_url":"{env.QUOTAGATE_TEST_UNSET}/x"`, "QUOTAGATE_TEST_UNSET"},
		{"all at once", guests + `,"on_outage":"wait","default_plan":"Free"`, "on_outage: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := provisioned(t, tc.members)
			wantError(t, err, tc.want)
		})
	}
}

// A URL that is refused may hold a password: the error shows nothing of it.
func TestRedisURLErrorHidesTheURL(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"http://:hunter2@localhost", "redis:hunter2", "hunter2", "://hunter2"} {
		err := checkRedisURL(url)
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("checkRedisURL(%q) = %v, want an error without the password", url, err)
		}
	}
	for _, url := range []string{
		"redis://localhost", "rediss://u:p@h:1/2", "unix:///run/redis.sock",
		"redis+sentinel://h:26379/m?x=y", "redis+cluster://a:1,b:2",
	} {
		if err := checkRedisURL(url); err != nil {
			t.Errorf("checkRedisURL(%q) = %v", url, err)
		}
	}
}
