package gatetest

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/store"
)

func idempotencyTests() map[string]func(*storeTest) {
	return map[string]func(*storeTest){
		"IdempotencyKeyIsUsedOnce":           testKeyOnce,
		"IdempotencyKeyOfADeadProcess":       testKeyOfTheDead,
		"IdempotencyKeyIsTakenByOneOfMany":   testKeyAtOnce,
		"IdempotencyKeyIsForgottenAfterADay": testKeyForgotten,
	}
}

func (t *storeTest) begin(hash string) (*store.IdempotentRequest, *store.IdempotentAnswer, error) {
	r := &store.IdempotentRequest{Owner: "user:boss", Key: "k", Hash: hash}
	a, err := t.store.BeginIdempotent(t.Context(), r)
	return r, a, err
}

// wantBegin fails unless the key is answered with the error.
func (t *storeTest) wantBegin(hash string, want error) {
	t.Helper()
	if _, a, err := t.begin(hash); !isErr(err, want) || a != nil {
		t.Errorf("answer %v, error %v, want %v", a, err, want)
	}
}

// done does something in the name of the request.
func (t *storeTest) done(r *store.IdempotentRequest) error {
	level := store.Level{Account: alice, Metric: "storage_bytes", Value: 1}
	return second(t.store.MeasureLevel(t.Context(), store.Actor{Request: r}, level, ""))
}

func testKeyOnce(t *storeTest) {
	r, a, err := t.begin("h")
	if must(t, a, err) != nil {
		t.Fatal("a new key has an answer")
	}
	t.wantBegin("h", store.ErrKeyInFlight)
	t.wantBegin("other", store.ErrKeyReused)
	t.ok(t.done(r))
	t.wantBegin("h", store.ErrKeyInFlight)
	want := store.IdempotentAnswer{Status: 200, Headers: map[string]string{"ETag": `"x"`}, Body: `{"a":1}`}
	t.ok(t.store.FinishIdempotent(t.Context(), r, want))
	_, a, err = t.begin("h")
	if diff := cmp.Diff(&want, must(t, a, err)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	t.wantBegin("other", store.ErrKeyReused)
	other := &store.IdempotentRequest{Owner: "user:other", Key: "k", Hash: "other"}
	if a, err := t.store.BeginIdempotent(t.Context(), other); err != nil || a != nil {
		t.Errorf("somebody else's key of the same name: %v, %v", a, err)
	}
}

func testKeyOfTheDead(t *storeTest) {
	first, _, err := t.begin("h")
	t.ok(err)
	t.clock.Add(store.IdempotencyLease + time.Second)
	second, a, err := t.begin("h") // nothing was done: it is carried out
	if must(t, a, err) != nil {
		t.Fatal("a key whose holder died has an answer")
	}
	if err := t.done(first); err == nil {
		t.Error("a request that was taken for dead does what another does by now")
	}
	if t.head().Seq != 0 {
		t.Error("what it did was not rolled back")
	}
	t.ok(t.store.ReleaseIdempotent(t.Context(), first)) // not its key any more
	t.wantBegin("h", store.ErrKeyInFlight)
	t.ok(t.done(second))
	t.ok(t.store.ReleaseIdempotent(t.Context(), second)) // it was done: the key stays
	t.clock.Add(store.IdempotencyLease + time.Second)
	t.wantBegin("h", store.ErrKeyAnswerLost)
}

func testKeyAtOnce(t *storeTest) {
	var taken atomic.Int32
	for _, err := range concurrently(t.Context(), 8, func(ctx context.Context, _ int) error {
		a, err := t.store.BeginIdempotent(ctx, &store.IdempotentRequest{Owner: "o", Key: "k", Hash: "h"})
		if err == nil && a == nil {
			taken.Add(1)
		}
		return err
	}) {
		if err != nil && !isErr(err, store.ErrKeyInFlight) {
			t.Error(err)
		}
	}
	if n := taken.Load(); n != 1 {
		t.Errorf("%d took the key, want 1", n)
	}
}

func testKeyForgotten(t *storeTest) {
	r, _, err := t.begin("h")
	t.ok(err)
	t.ok(t.done(r))
	t.ok(t.store.FinishIdempotent(t.Context(), r, store.IdempotentAnswer{Status: 200}))
	t.clock.Add(store.KeepIdempotencyKey + time.Second)
	if _, a, err := t.begin("other"); err != nil || a != nil {
		t.Errorf("a day later: %v, %v", a, err)
	}
	t.clock.Add(store.KeepIdempotencyKey + time.Second)
	t.ok(t.store.PruneRequests(t.Context()))
	if n := t.number("SELECT COUNT(*) FROM idempotency_keys"); n != 0 {
		t.Errorf("%d keys are kept", n)
	}
}
