package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// backend is one stand-in to be served.
type backend struct {
	name, address string
	handler       http.Handler
}

// backends are the stand-ins that run.
type backends struct {
	servers []*http.Server
	cancel  context.CancelFunc // ends the context of every request
	failed  chan error         // a server that stopped by itself
}

// startBackends listens for all before it serves any.
func startBackends(ctx context.Context, bs []backend) (*backends, error) {
	requests, cancel := context.WithCancel(context.WithoutCancel(ctx))
	run := &backends{cancel: cancel, failed: make(chan error, len(bs))}
	var listeners []net.Listener
	for _, b := range bs {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", b.address)
		if err != nil {
			cancel()
			for _, open := range listeners {
				err = errors.Join(err, open.Close())
			}
			return nil, fmt.Errorf("listening for the %s: %w", b.name, err)
		}
		listeners = append(listeners, l)
	}
	for i, b := range bs {
		server := &http.Server{
			Handler:           b.handler,
			BaseContext:       func(net.Listener) context.Context { return requests },
			ReadHeaderTimeout: 10 * time.Second,
		}
		run.servers = append(run.servers, server)
		go func() {
			if err := server.Serve(listeners[i]); !errors.Is(err, http.ErrServerClosed) {
				run.failed <- fmt.Errorf("serving the %s: %w", b.name, err)
			}
		}()
	}
	return run, nil
}

// closeStreams ends what would otherwise go on as long as its client stays.
func (b *backends) closeStreams() { b.cancel() }

// stop ends all stand-ins, giving what they are answering a moment.
func (b *backends) stop() error {
	b.cancel()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var errs []error
	for _, server := range b.servers {
		if err := server.Shutdown(ctx); err != nil {
			errs = append(errs, fmt.Errorf("stopping a backend: %w", err), server.Close())
		}
	}
	return errors.Join(errs...)
}
