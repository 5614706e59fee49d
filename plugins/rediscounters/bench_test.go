package rediscounters

import (
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

func rateCharge(subject quota.Subject, scope string, limit int64, window time.Duration) quota.Charge {
	return quota.Charge{
		Key:   quota.Key{Digest: subject.Digest(), Name: scope, Space: quota.SpaceRate},
		Limit: quota.Limit{Max: limit, Window: window}, Cost: 1, Status: 429,
	}
}

func usageCharge(account quota.Subject, metric string, p quota.Period) quota.Charge {
	start, end := p.Span(time.Now(), time.Time{})
	c := quota.Charge{
		Key:     quota.Key{Digest: account.Digest(), Name: metric, Space: quota.SpaceUsage, Period: p},
		Account: account, Limit: quota.Limit{Unlimited: true}, Cost: 1, Status: 402,
	}
	if p != quota.PeriodNone {
		c.Key.Start, c.End = start.Unix(), end.Unix()
	}
	return c
}

// benchCharges are a request's usual three: a rate, a quota, and the month for display.
func benchCharges(user int) []quota.Charge {
	account := quota.UserSubject(fmt.Sprintf("user-%d", user))
	day := usageCharge(account, "calls", quota.PeriodDay)
	return []quota.Charge{
		rateCharge(account, "api", 1<<40, time.Minute), day, usageCharge(account, "calls", quota.PeriodMonth),
	}
}

// cpuSeconds is the processor time that a process has used.
func cpuSeconds(b *testing.B, s *gatetest.RedisServer) float64 {
	b.Helper()
	var sum float64
	for _, line := range strings.Split(s.Do(b, "INFO", "cpu"), "\n") {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name == "used_cpu_sys" || name == "used_cpu_user" {
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				b.Fatal(err)
			}
			sum += n
		}
	}
	return sum
}

func BenchmarkReserve(b *testing.B) {
	for _, callers := range []int{1, 8, 64, 256} {
		b.Run(strconv.Itoa(callers), func(b *testing.B) { benchReserve(b, callers) })
	}
}

func benchReserve(b *testing.B, callers int) {
	s := gatetest.Redis(b)
	e, err := Open(options(b, s.URL()))
	if err != nil {
		b.Fatal(err)
	}
	defer e.Close() // the benchmark is over
	var users atomic.Int64
	b.ReportAllocs()
	b.SetParallelism(max(1, callers/2))
	before := cpuSeconds(b, s)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		var sets [][]quota.Charge
		for range 16 {
			sets = append(sets, benchCharges(int(users.Add(1))))
		}
		var d quota.Decision
		for i := 0; pb.Next(); i++ {
			if err := e.Reserve(b.Context(), sets[i%len(sets)], &d); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.StopTimer()
	for _, line := range strings.Split(s.Do(b, "INFO", "commandstats"), "\n") {
		if strings.Contains(line, "evalsha") {
			b.Log(line)
		}
	}
	b.ReportMetric((cpuSeconds(b, s)-before)*1e6/float64(b.N), "redis-µs/op")
}
