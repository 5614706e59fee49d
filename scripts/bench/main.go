// Command bench compares the CPU that a proxied request costs in this build
// with what it costs in plain Caddy.
//
// Both run at the same time, pinned to the same core, at the same GOGC, with
// one backend; each client sends to the one and the other in turn, so both
// serve the same number of requests in the same seconds and whatever disturbs
// the machine disturbs both. CPU time is the kernel's own account of each
// process (user and system). One pair is one such measurement; the figure to
// quote is the median ratio over the pairs, with their spread.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"time"
)

func main() {
	var o options
	flag.StringVar(&o.ours, "ours", ".bin/caddy", "the build to measure")
	flag.StringVar(&o.plain, "plain", ".bin/plain", "plain Caddy")
	flag.IntVar(&o.pairs, "pairs", 7, "measurements")
	flag.IntVar(&o.requests, "requests", 20_000, "requests to each in one measurement")
	flag.IntVar(&o.clients, "clients", 16, "concurrent connections to each")
	flag.StringVar(&o.gogc, "gogc", "100", "GOGC of both")
	flag.StringVar(&o.counters, "counters", "memory", "where it counts: memory, or redis, of which it starts one")
	flag.BoolVar(&o.socket, "socket", false, "it reaches that Redis by a unix socket, not by TCP")
	flag.BoolVar(&o.refuse, "refuse", false, "ours refuses each request by a rate limit, while plain Caddy proxies it")
	flag.BoolVar(&o.release, "release", false, "ours with the settings of "+unit+", plain Caddy as it comes")
	flag.StringVar(&o.headers, "headers", "both", "the directive's option headers")
	flag.StringVar(&o.stage, "stage", "all", "how much of the gateway is configured: respond, fields, nothing, app, identify or all")
	flag.StringVar(&o.profile, "cpuprofile", "", "write CPU profiles to FILE (ours) and FILE.plain; they disturb the ratio")
	flag.DurationVar(&o.profileTime, "profiletime", 10*time.Second, "how long to profile, in whole seconds")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	ours, plain, gogc, headers, stage, profile, counters string
	pairs, requests, clients                             int
	profileTime                                          time.Duration
	socket, refuse, release                              bool
}

// sample is what one measurement says of one process.
type sample struct {
	cpu, p50, p99 time.Duration // cpu is per request
}

func run(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "quotagate-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) // a temporary folder
	rig, err := newRig(ctx, dir, o)
	if err != nil {
		return err
	}
	defer rig.stop()
	if _, _, err := rig.measure(ctx, o.requests/4); err != nil { // warm up
		return err
	}
	if o.profile != "" {
		defer rig.profile(ctx, rig.ours, o.profile, o.profileTime)()
		defer rig.profile(ctx, rig.plain, o.profile+".plain", o.profileTime)()
	}
	report, err := rig.counting(ctx)
	if err != nil {
		return err
	}
	redisReport, err := rig.redis.counting(ctx)
	if err != nil {
		return err
	}
	var ratios []float64
	fmt.Printf("%4s %14s %14s %8s %22s %22s\n", "pair", "ours", "plain", "ratio", "ours p50/p99", "plain p50/p99")
	for i := range o.pairs {
		ours, plain, err := rig.measure(ctx, o.requests)
		if err != nil {
			return err
		}
		ratio := float64(ours.cpu) / float64(plain.cpu)
		ratios = append(ratios, ratio)
		fmt.Printf("%4d %11.2f µs %11.2f µs %8.3f %22s %22s\n", i+1, micros(ours.cpu), micros(plain.cpu), ratio,
			ours.latency(), plain.latency())
	}
	slices.Sort(ratios)
	fmt.Printf("CPU per request, ours over plain: median %.3f, spread %.3f..%.3f, %d pairs of %d requests, %s\n",
		ratios[len(ratios)/2], ratios[0], ratios[len(ratios)-1], o.pairs, o.requests, rig.settings)
	if err := redisReport(o.pairs * o.requests); err != nil {
		return err
	}
	return report(o.pairs * o.requests)
}

func (s sample) latency() string {
	return fmt.Sprintf("%.2f/%.2f ms", micros(s.p50)/1000, micros(s.p99)/1000)
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
