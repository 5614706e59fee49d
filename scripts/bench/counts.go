package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// counts are what a process has done since it began, as far as it tells why one
// costs more than another.
type counts struct {
	user, system          float64 // seconds; the kernel's own in steps of 10 ms
	allocs, bytes, cycles float64 // of the garbage collector
	faults, switches      float64
}

// count asks the process's metrics and the kernel.
func (p *process) count(ctx context.Context) (c counts, err error) {
	metrics := map[string]*float64{
		"go_memstats_mallocs_total": &c.allocs, "go_memstats_alloc_bytes_total": &c.bytes, "go_gc_duration_seconds_count": &c.cycles,
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.admin+"/metrics", nil)
	if err != nil {
		return c, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return c, err
	}
	defer res.Body.Close() // read to its end
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if at := metrics[name]; at != nil {
			if *at, err = strconv.ParseFloat(value, 64); err != nil {
				return c, err
			}
		}
	}
	if err := lines.Err(); err != nil {
		return c, err
	}
	return c, p.countKernel(&c)
}

// countKernel reads proc_pid_stat(5) and proc_pid_status(5).
func (p *process) countKernel(c *counts) error {
	dir := fmt.Sprintf("/proc/%d", p.cmd.Process.Pid)
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return err
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest) // from the third on
	for i, at := range map[int]*float64{10: &c.faults, 14: &c.user, 15: &c.system} {
		if *at, err = strconv.ParseFloat(fields[i-3], 64); err != nil {
			return err
		}
	}
	const ticks = 100 // a second: USER_HZ
	c.user, c.system = c.user/ticks, c.system/ticks
	tasks, err := filepath.Glob(filepath.Join(dir, "task/*/status"))
	if err != nil {
		return err
	}
	for _, file := range tasks {
		status, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		for line := range strings.Lines(string(status)) {
			if name, value, _ := strings.Cut(line, ":"); strings.HasSuffix(name, "voluntary_ctxt_switches") {
				n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
				if err != nil {
					return err
				}
				c.switches += n
			}
		}
	}
	return nil
}

// print writes what one request took of each since before.
func (c counts) print(name string, before counts, requests int) {
	n := float64(requests)
	fmt.Printf("%s, a request: user %.1f µs, system %.1f µs, %.1f allocations of %.0f bytes; 1000 requests: %.2f GC cycles, %.1f page faults, %.0f context switches\n",
		name, (c.user-before.user)/n*1e6, (c.system-before.system)/n*1e6, (c.allocs-before.allocs)/n, (c.bytes-before.bytes)/n,
		(c.cycles-before.cycles)/n*1e3, (c.faults-before.faults)/n*1e3, (c.switches-before.switches)/n*1e3)
}

// counting begins to count; the report is of what was counted since.
func (r *rig) counting(ctx context.Context) (report func(requests int) error, err error) {
	var before [2]counts
	processes := [2]*process{r.ours, r.plain}
	for i, p := range processes {
		if before[i], err = p.count(ctx); err != nil {
			return nil, err
		}
	}
	return func(requests int) error {
		for i, p := range processes {
			after, err := p.count(ctx)
			if err != nil {
				return err
			}
			after.print([...]string{"ours", "plain"}[i], before[i], requests)
		}
		return nil
	}, nil
}
