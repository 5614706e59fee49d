package jwtverifier

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/quotagate/quotagate/caddymodule/gate"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

// core is what equal configs share across reloads: the resolved settings, the
// keys and the tokens that were verified with them. It keeps nothing that
// belongs to one config.
type core struct {
	*settings
	remote *remote // nil for keys that never change
	cache  *cache
}

// remotes are shared by all configs with the same address: a reload with other
// options goes on with the known keys though the endpoint be down.
var remotes = caddy.NewUsagePool()

func newCore(s *settings) (*core, error) {
	c := &core{settings: s, cache: newCache(cacheEntries, cacheBytes)}
	if s.keys != nil {
		return c, nil
	}
	shared, _, err := remotes.LoadOrNew(s.jwks, func() (caddy.Destructor, error) {
		return newRemote(s.jwks, httpFetch(s.jwks)), nil
	})
	if err != nil {
		return nil, fmt.Errorf("making the remote key set: %w", err)
	}
	c.remote = shared.(*remote)
	return c, nil
}

// Destruct lets go of the remote keys; caddy.UsagePool calls it when the last
// config that uses the core is gone.
func (c *core) Destruct() error {
	if c.remote == nil {
		return nil
	}
	_, err := remotes.Delete(c.jwks)
	return err
}

// known are the keys as of now.
func (c *core) known() *keySet {
	if c.remote == nil {
		return c.keys
	}
	return c.remote.keys.Load()
}

// token verifies one token. It answers gate.ErrUnclaimed for what is no token,
// or one of another algorithm or issuer.
func (c *core) token(ctx context.Context, token string) (*quota.Principal, error) {
	now, keys := time.Now(), c.known()
	if p := c.cache.get(token, keys.epoch, now); p != nil {
		return p, nil
	}
	return c.verify(ctx, token, keys, now)
}

// verify does the work for a token that the cache does not know: what is cheap
// goes before the signature, so that a bad token costs little.
func (c *core) verify(ctx context.Context, token string, keys *keySet, now time.Time) (*quota.Principal, error) {
	t, err := parseJWS(token)
	if err != nil {
		return nil, gate.ErrUnclaimed
	}
	a := c.algorithms.find(t.alg)
	if a == nil {
		return nil, gate.ErrUnclaimed
	}
	claims, err := t.claims()
	if c.issuer != "" && (err != nil || issuer(claims) != c.issuer) {
		return nil, gate.ErrUnclaimed
	}
	if err != nil {
		return nil, invalid(err)
	}
	when, err := c.check(claims, now)
	if err != nil {
		return nil, invalid(err)
	}
	err = t.verify(a, keys)
	if errors.Is(err, errUnknownKey) && c.remote != nil {
		if keys == c.known() {
			c.remote.await(ctx)
		}
		keys = c.known()
		err = t.verify(a, keys)
	}
	if err != nil {
		return nil, invalid(keys.explain(t, err))
	}
	p, err := c.principal(claims, when)
	if err != nil {
		return nil, invalid(err)
	}
	c.cache.put(token, keys.epoch, when.expires.Add(c.leeway), p)
	return p, nil
}

// claims parses the payload.
func (t *jws) claims() (object, error) {
	if t.bodyErr != nil {
		return nil, t.bodyErr
	}
	return parseObject(t.payload)
}

// invalid refuses a token. The reasons name claims and bounds, never what the
// token holds.
func invalid(err error) error {
	refused := &gate.InvalidError{Reason: err.Error()}
	if errors.Is(err, errExpired) || errors.Is(err, errSignature) {
		return &worthless{refused}
	}
	return refused
}

// worthless is a refused token that no backend accepts either, however leniently it reads.
type worthless struct{ *gate.InvalidError }

func (w *worthless) Unwrap() error { return w.InvalidError }
