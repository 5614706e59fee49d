package rediscounters

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/quotagate/quotagate/caddymodule"
	"github.com/quotagate/quotagate/caddymodule/doctor"
	"github.com/redis/go-redis/v9"
)

// testedVersion is the oldest major version that the tests run on.
const testedVersion = 7

// Examine asks each master how it is set up, and writes a key that is gone after
// a second. It implements caddymodule.Examiner.
func (m *Module) Examine(ctx context.Context, _ caddymodule.Env) []doctor.Finding {
	const check = "counters"
	servers, err := connect(&m.options)
	if err != nil {
		return []doctor.Finding{doctor.Fault(check, "%v", err)}
	}
	asking, cancel := context.WithTimeout(ctx, policyTime)
	defer cancel()
	var mu sync.Mutex
	var findings []doctor.Finding
	err = servers.masters(asking, func(ctx context.Context, c *redis.Client) error {
		found, err := m.examineServer(ctx, c)
		mu.Lock()
		defer mu.Unlock()
		findings = append(findings, found...)
		return err
	})
	if err == nil {
		err = servers.probe(asking, m.options.Prefix)
	}
	slices.SortStableFunc(findings, func(a, b doctor.Finding) int {
		return cmp.Compare(addressOf(a.Detail), addressOf(b.Detail))
	})
	if err != nil {
		findings = append(findings, doctor.Fault(check, "%s does not count: %v; the rules' on_outage applies", strings.Join(m.options.Address.Hosts, ", "), err))
	}
	if err := servers.close(); err != nil {
		findings = append(findings, doctor.Fault(check, "closing: %v", err))
	}
	return findings
}

// addressOf is what a detail begins with.
func addressOf(detail string) string {
	addr, _, _ := strings.Cut(detail, ": ")
	return addr
}

func (m *Module) examineServer(ctx context.Context, c *redis.Client) ([]doctor.Finding, error) {
	const check = "counters"
	info, err := c.Info(ctx, "server", "memory", "persistence").Result()
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	if err := c.Ping(ctx).Err(); err != nil {
		return nil, err
	}
	took := time.Since(begun)
	addr, version := c.Options().Addr, infoField(info, "redis_version")
	findings := []doctor.Finding{doctor.Well(check, "%s: Redis %s, answers in %s", addr, version, took.Round(10*time.Microsecond))}
	doubt := func(configure, format string, args ...any) {
		findings = append(findings, doctor.Doubt(check, addr+": "+format, args...).Do(configure))
	}
	if bad := badPolicy(info); bad != nil {
		findings = append(findings, doctor.Fault(check, "%s: %v", addr, bad).
			Do("redis-cli CONFIG SET maxmemory-policy noeviction\nredis-cli CONFIG REWRITE"))
	}
	if infoField(info, "aof_enabled") == "0" {
		doubt("redis-cli CONFIG SET appendonly yes\nredis-cli CONFIG REWRITE",
			"no append-only file: a restart forgets rate windows, and usage that no gateway has flushed yet")
	}
	major, _, _ := strings.Cut(version, ".")
	if n, err := strconv.Atoi(major); err == nil && n < testedVersion {
		doubt("", "version %s is older than what is tested, %d", version, testedVersion)
	}
	if budget := time.Duration(m.Timeout); took > budget/2 {
		doubt(fmt.Sprintf("counters redis ... {\n\ttimeout %s\n}", (4*took).Round(time.Millisecond)),
			"an answer takes %s, of the %s that a call may take", took.Round(time.Millisecond), budget)
	}
	return findings, nil
}

// Interface guard.
var _ caddymodule.Examiner = (*Module)(nil)
