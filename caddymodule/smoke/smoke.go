// Package smoke asks a gateway that was just deployed the few questions whose
// answers tell whether callers are served: is it well, does it know a good
// token from a bad one, does it limit, does it count. It goes in by the front
// door, as a client does, and leaves nothing behind but its own requests.
package smoke

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxBody bounds what is read of an answer, in bytes.
const maxBody = 1 << 20

// Target is the gateway to ask.
type Target struct {
	// URL is where clients reach the gateway, without a path of its own.
	URL string
	// Health is where /livez and /readyz are answered.
	Health string
	// Token is a valid token of some user; its requests are charged to that user.
	Token string
	// Scheme is what stands before a token in Authorization, e.g. Bearer.
	Scheme string
	// Path is asked for with the token, by GET. A rule that limits and spends
	// something has to match it.
	Path string
	// Client sends the requests; it must not follow redirects.
	Client *http.Client
	// Patience is how long usage may take to show what was used.
	Patience time.Duration
}

// Check is the answer to one question.
type Check struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	// Detail is what was seen; of a check that failed, what to look at.
	Detail string `json:"detail"`
}

// Run asks all questions, whatever becomes of those before.
func Run(ctx context.Context, t Target) []Check {
	t.URL, t.Health = strings.TrimSuffix(t.URL, "/"), strings.TrimSuffix(t.Health, "/")
	checks := make([]Check, 0, 6)
	for _, q := range []struct {
		name string
		ask  func(context.Context) (string, error)
	}{
		{"alive", t.alive},
		{"ready", t.ready},
		{"bad token refused", t.refuses},
		{"token accepted", t.accepts},
		{"limits shown", t.limits},
		{"usage counted", t.counts},
	} {
		detail, err := q.ask(ctx)
		if err != nil {
			detail = err.Error()
		}
		checks = append(checks, Check{Name: q.name, OK: err == nil, Detail: detail})
	}
	return checks
}

// Failed reports whether any of the checks failed.
func Failed(checks []Check) bool {
	for _, c := range checks {
		if !c.OK {
			return true
		}
	}
	return false
}

func (t *Target) alive(ctx context.Context) (string, error) {
	r, err := t.get(ctx, t.Health+"/livez", "")
	if err != nil {
		return "", err
	}
	return r.line(), r.want(http.StatusOK, "is this the port with quota_health?")
}

// ready takes degraded for a failure: the gateway goes on, but after a deploy
// somebody should know.
func (t *Target) ready(ctx context.Context) (string, error) {
	r, err := t.get(ctx, t.Health+"/readyz", "")
	if err != nil {
		return "", err
	}
	if err := r.want(http.StatusOK, "the gateway's log says why"); err != nil {
		return "", err
	}
	var answer struct {
		Status string
		Checks map[string]struct{ Status, Detail string }
	}
	if err := r.decode(&answer); err != nil {
		return "", err
	}
	if answer.Status != "ready" {
		var parts []string
		for _, name := range slices.Sorted(maps.Keys(answer.Checks)) {
			if c := answer.Checks[name]; c.Detail != "" {
				parts = append(parts, name+": "+c.Detail)
			}
		}
		return "", fmt.Errorf("it says %s: %s", answer.Status, strings.Join(parts, "; "))
	}
	return "records and counters answer", nil
}

func (t *Target) refuses(ctx context.Context) (string, error) {
	r, err := t.get(ctx, t.URL+t.Path, "not-a-token")
	if err != nil {
		return "", err
	}
	return r.line(), r.want(http.StatusUnauthorized, "a request with a bad token was not refused: no verifier claims it, or no rule matches "+t.Path)
}

func (t *Target) accepts(ctx context.Context) (string, error) {
	r, err := t.get(ctx, t.URL+t.Path, t.Token)
	if err != nil {
		return "", err
	}
	switch r.StatusCode {
	case http.StatusUnauthorized:
		return "", fmt.Errorf("%s: the token is not one that this gateway accepts", r.line())
	case http.StatusForbidden, http.StatusPaymentRequired, http.StatusTooManyRequests:
		return "", fmt.Errorf("%s: its user may not pass; take a token of another", r.line())
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return "", fmt.Errorf("%s: the backend was not reached", r.line())
	}
	return r.line(), nil
}

// remaining finds the parameter r of the items of a RateLimit field.
var remaining = regexp.MustCompile(`"([^"]+)"[^,]*;r=(\d+)`)

func (t *Target) limits(ctx context.Context) (string, error) {
	var left [2]map[string]int64
	for i := range left {
		r, err := t.get(ctx, t.URL+t.Path, t.Token)
		if err != nil {
			return "", err
		}
		field := r.Header.Get("RateLimit")
		if field == "" || r.Header.Get("RateLimit-Policy") == "" {
			return "", fmt.Errorf("%s without RateLimit fields: no rule with a limit matches %s, or headers are off", r.line(), t.Path)
		}
		left[i] = map[string]int64{}
		for _, m := range remaining.FindAllStringSubmatch(field, -1) {
			if left[i][m[1]], err = strconv.ParseInt(m[2], 10, 64); err != nil {
				return "", fmt.Errorf("RateLimit: %s: %w", field, err)
			}
		}
	}
	var seen []string
	for _, name := range slices.Sorted(maps.Keys(left[0])) {
		before := left[0][name]
		if after, ok := left[1][name]; ok && after < before {
			seen = append(seen, fmt.Sprintf("%s %d, then %d", name, before, after))
		}
	}
	if len(seen) == 0 {
		return "", fmt.Errorf("two requests, and no limit has less left: %v, then %v", left[0], left[1])
	}
	return strings.Join(seen, "; "), nil
}

// counts looks whether a request raises what the user has used.
func (t *Target) counts(ctx context.Context) (string, error) {
	before, err := t.usage(ctx)
	if err != nil {
		return "", err
	}
	if _, err := t.accepts(ctx); err != nil {
		return "", err
	}
	late := time.NewTimer(t.Patience)
	defer late.Stop()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		after, err := t.usage(ctx)
		if err != nil {
			return "", err
		}
		for _, metric := range slices.Sorted(maps.Keys(after)) {
			if used := after[metric]; used > before[metric] {
				return fmt.Sprintf("%s %d, then %d", metric, before[metric], used), nil
			}
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-late.C:
			return "", fmt.Errorf("a request raised no usage within %s: no rule that spends a metric of the plan matches %s", t.Patience, t.Path)
		case <-again.C:
		}
	}
}

// usage is what the token's user has used of each metric and period.
func (t *Target) usage(ctx context.Context) (map[string]int64, error) {
	r, err := t.get(ctx, t.URL+"/v1/subscription/usage", t.Token)
	if err != nil {
		return nil, err
	}
	if err := r.want(http.StatusOK, "is quota_account served here?"); err != nil {
		return nil, err
	}
	var answer struct {
		Quotas []struct {
			Metric, Period string
			Used           int64
		}
	}
	if err := r.decode(&answer); err != nil {
		return nil, err
	}
	used := make(map[string]int64, len(answer.Quotas))
	for _, q := range answer.Quotas {
		used[q.Metric+"/"+q.Period] = q.Used
	}
	return used, nil
}

// reply is an answer, read to its end.
type reply struct {
	*http.Response
	path string
	body []byte
}

func (t *Target) get(ctx context.Context, url, token string) (*reply, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w", url, err)
	}
	if token != "" {
		req.Header.Set("Authorization", t.Scheme+" "+token)
	}
	res, err := t.Client.Do(req)
	if err != nil {
		return nil, err // it names the URL
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxBody))
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return nil, fmt.Errorf("reading the answer of %s: %w", url, err)
	}
	return &reply{res, req.URL.Path, body}, nil
}

func (r *reply) line() string { return fmt.Sprintf("GET %s: %s", r.path, r.Status) }

func (r *reply) want(status int, hint string) error {
	if r.StatusCode == status {
		return nil
	}
	return fmt.Errorf("%s, want %d: %s", r.line(), status, hint)
}

func (r *reply) decode(v any) error {
	if err := json.Unmarshal(r.body, v); err != nil {
		return fmt.Errorf("%s: the answer is not the JSON of a gateway: %w", r.line(), err)
	}
	return nil
}
