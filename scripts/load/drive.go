package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// requestTimeout bounds one request.
const requestTimeout = 30 * time.Second

// sent is one request and what became of it.
type sent struct {
	user       int
	begun, end time.Time
	status     int // 0: no answer
	policy     string
}

// drive sends the load and waits for all answers.
func drive(ctx context.Context, o options) (*report, error) {
	tokens := make([]string, o.users)
	for i := range tokens {
		var err error
		if tokens[i], err = sign(o, i); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, o.duration)
	defer cancel()
	transport := &http.Transport{MaxIdleConnsPerHost: o.clients, DisableCompression: true}
	defer transport.CloseIdleConnections()
	c := &http.Client{
		Transport: transport, Timeout: requestTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	var (
		wg   sync.WaitGroup
		next atomic.Int64
		mu   sync.Mutex
		all  []sent
	)
	began := time.Now()
	for range o.clients {
		wg.Go(func() {
			var own []sent
			for ctx.Err() == nil {
				n := int(next.Add(1)) - 1
				if n >= o.requests {
					break
				}
				own = append(own, send(c, o, n%o.users, tokens[n%o.users]))
			}
			mu.Lock()
			all = append(all, own...)
			mu.Unlock()
		})
	}
	wg.Wait()
	return newReport(all, time.Since(began))
}

// send is one request; it outlives the end of the load, so that each has an outcome.
func send(c *http.Client, o options, user int, token string) sent {
	s := sent{user: user, begun: time.Now()}
	req, err := http.NewRequest(o.method, o.url, http.NoBody) //nolint:noctx // the client's timeout bounds it
	if err != nil {
		s.end = time.Now()
		return s
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := c.Do(req)
	if err == nil {
		s.status, s.policy = res.StatusCode, res.Header.Get("RateLimit-Policy")
		if _, err = io.Copy(io.Discard, res.Body); err != nil {
			s.status = 0
		}
		_ = res.Body.Close() // it was read
	}
	s.end = time.Now()
	return s
}

func sign(o options, user int) (string, error) {
	now := time.Now()
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"sub": fmt.Sprint("load-", user), "type": "access", "iat": now.Add(-5 * time.Second).Unix(), "exp": now.Add(time.Hour).Unix(),
	}).SignedString([]byte(o.secret))
	if err != nil {
		return "", fmt.Errorf("signing a token: %w", err)
	}
	return token, nil
}
