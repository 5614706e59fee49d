// Command load drives a load against a gateway on this machine and says what
// became of it: how many requests were admitted and denied, whether any limit
// was exceeded, and how long answers took.
//
// Clients send one request after the other, each for the next of the users in
// turn, with tokens that are signed here. Limits are what the answers' own
// RateLimit-Policy fields say. A limit q in w is exceeded if q+1 requests of a
// user were admitted of which the first was sent less than w before the last was
// answered: whatever the network did, their admissions lie in one window.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"time"
)

type options struct {
	url, method string
	secret      string
	users       int
	clients     int
	requests    int
	duration    time.Duration
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	r, err := drive(ctx, o)
	if err != nil {
		return err
	}
	r.print(os.Stdout)
	return r.verdict()
}

func parse(args []string) (options, error) {
	o := options{}
	var file string
	fs := flag.NewFlagSet("load", flag.ContinueOnError)
	fs.StringVar(&o.url, "url", "http://localhost:8080/items", "what to ask for, on this machine")
	fs.StringVar(&o.method, "method", "GET", "by which method")
	fs.StringVar(&file, "secret-file", "data/jwt_secret", "where the secret is that tokens are signed with (HS256), unless JWT_SECRET is set")
	fs.IntVar(&o.users, "users", 50, "users, each with a token of its own")
	fs.IntVar(&o.clients, "clients", 16, "clients that send at the same time")
	fs.IntVar(&o.requests, "requests", 100_000, "requests, at most")
	fs.DurationVar(&o.duration, "duration", 10*time.Second, "how long, at most")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if o.users < 1 || o.clients < 1 || o.requests < 1 || o.duration <= 0 {
		return o, errors.New("users, clients, requests and duration are above 0")
	}
	if err := checkLoopback(o.url); err != nil {
		return o, err
	}
	if o.secret = os.Getenv("JWT_SECRET"); o.secret == "" {
		content, err := os.ReadFile(file)
		if err != nil {
			return o, fmt.Errorf("set JWT_SECRET, or name its file with -secret-file: %w", err)
		}
		o.secret = strings.TrimSpace(string(content))
	}
	return o, nil
}

// checkLoopback refuses to load machines of others.
func checkLoopback(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Hostname() == "" {
		return fmt.Errorf("%q is not a URL: write for example http://localhost:8080/items", address)
	}
	if ip := net.ParseIP(u.Hostname()); u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("%s is not this machine: load is for localhost, 127.0.0.1 or ::1", u.Hostname())
	}
	return nil
}
