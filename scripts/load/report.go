package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"time"
)

// report is what became of a load.
type report struct {
	took     time.Duration
	statuses map[int]int // 0: no answer
	admitted []time.Duration
	denied   []time.Duration
	// over counts admitted requests by which a limit was certainly exceeded.
	over   int
	limits []limit
}

// limit is one rate limit that the answers named.
type limit struct {
	name     string
	requests int
	window   time.Duration
}

// denied reports whether the gateway refused a request; what a backend answers
// is admitted, whatever it says.
func (s *sent) denied() bool {
	return s.status == 429 || s.status == 402 || s.status == 401 || s.status == 403 || s.status == 503
}

func newReport(all []sent, took time.Duration) (*report, error) {
	r := &report{took: took, statuses: map[int]int{}}
	limits := map[limit]map[int][]sent{}
	for _, s := range all {
		r.statuses[s.status]++
		switch {
		case s.status == 0:
			continue
		case s.denied():
			r.denied = append(r.denied, s.end.Sub(s.begun))
			continue
		}
		r.admitted = append(r.admitted, s.end.Sub(s.begun))
		named, err := parsePolicy(s.policy)
		if err != nil {
			return nil, err
		}
		for _, l := range named {
			if limits[l] == nil {
				limits[l] = map[int][]sent{}
			}
			limits[l][s.user] = append(limits[l][s.user], s)
		}
	}
	r.limits = slices.SortedFunc(maps.Keys(limits), func(a, b limit) int {
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.requests, b.requests), cmp.Compare(a.window, b.window))
	})
	for l, users := range limits {
		for _, sents := range users {
			r.over += exceeded(sents, l)
		}
	}
	slices.Sort(r.admitted)
	slices.Sort(r.denied)
	return r, nil
}

// exceeded counts the requests that were answered less than a window after they,
// and the limit's number of others before them, had been sent.
func exceeded(sents []sent, l limit) int {
	// By the time of the answer; the earliest that each of the others can have been
	// admitted is when it was sent.
	slices.SortFunc(sents, func(a, b sent) int { return a.end.Compare(b.end) })
	over := 0
	for i := l.requests; i < len(sents); i++ {
		first := sents[i].begun
		for _, s := range sents[i-l.requests : i] {
			if s.begun.Before(first) {
				first = s.begun
			}
		}
		if sents[i].end.Sub(first) < l.window {
			over++
		}
	}
	return over
}

// policies finds the rate limits of a RateLimit-Policy field; a quota has no window.
var policies = regexp.MustCompile(`"([^"]+)";q=(\d+);w=(\d+)`)

func parsePolicy(field string) ([]limit, error) {
	var limits []limit
	for _, m := range policies.FindAllStringSubmatch(field, -1) {
		requests, err := strconv.Atoi(m[2])
		if err != nil {
			return nil, fmt.Errorf("RateLimit-Policy: %s: %w", field, err)
		}
		seconds, err := strconv.Atoi(m[3])
		if err != nil {
			return nil, fmt.Errorf("RateLimit-Policy: %s: %w", field, err)
		}
		limits = append(limits, limit{m[1], requests, time.Duration(seconds) * time.Second})
	}
	return limits, nil
}

func (r *report) print(w io.Writer) {
	n := len(r.admitted) + len(r.denied) + r.statuses[0]
	fmt.Fprintf(w, "%d requests in %s, %.0f a second\n\n", n, r.took.Round(time.Millisecond), float64(n)/r.took.Seconds())
	fmt.Fprintf(w, "%-14s %8s %12s %12s\n", "", "number", "p50", "p99")
	fmt.Fprintf(w, "%-14s %8d %12s %12s\n", "admitted", len(r.admitted), percentile(r.admitted, 50), percentile(r.admitted, 99))
	fmt.Fprintf(w, "%-14s %8d %12s %12s\n", "denied", len(r.denied), percentile(r.denied, 50), percentile(r.denied, 99))
	fmt.Fprintf(w, "%-14s %8d\n", "over-admitted", r.over)
	fmt.Fprintf(w, "%-14s %8d\n\n", "unanswered", r.statuses[0])
	for _, status := range slices.Sorted(maps.Keys(r.statuses)) {
		if status != 0 {
			fmt.Fprintf(w, "status %d        %7d\n", status, r.statuses[status])
		}
	}
	for _, l := range r.limits {
		fmt.Fprintf(w, "limit %-10s %d in %s\n", l.name, l.requests, l.window)
	}
}

// verdict is an error if a limit was exceeded, or if nothing was shown.
func (r *report) verdict() error {
	switch {
	case r.over > 0:
		return fmt.Errorf("%d requests were admitted beyond a limit", r.over)
	case len(r.admitted) == 0:
		return fmt.Errorf("nothing was admitted: statuses %v", r.statuses)
	}
	return nil
}

// percentile is the smallest duration that p percent of all do not exceed.
func percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[(len(sorted)*p+99)/100-1].Round(time.Microsecond)
}
