package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/quotagate/quotagate/caddymodule/store/column"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// The times of idempotency keys.
const (
	// KeepIdempotencyKey is how long a repeated request gets the first one's answer.
	KeepIdempotencyKey = 24 * time.Hour
	// IdempotencyLease is how long a request may take before its process counts as dead.
	IdempotencyLease = 3 * time.Minute
)

// Why a request with an idempotency key is not carried out.
var (
	// ErrKeyReused: the key came with another request (422).
	ErrKeyReused = errors.New("the idempotency key was used for another request")
	// ErrKeyInFlight: the first request is not answered yet (409).
	ErrKeyInFlight = errors.New("a request with this idempotency key is being carried out")
	// ErrKeyAnswerLost: the first request was carried out, and its answer is lost (409).
	ErrKeyAnswerLost = errors.New("a request with this idempotency key was carried out, and its answer is lost")
	// errKeyTaken rolls back what a request does whose key was taken over.
	errKeyTaken = errors.New("the request took so long that its idempotency key was given to another")
)

// IdempotentRequest is a request that holds its key.
type IdempotentRequest struct {
	Owner string // whose keys they are: an account
	Key   string
	// Hash is of everything that makes the request: the same key with another hash is refused.
	Hash string

	holder string
}

// IdempotentAnswer is what a request was answered with.
type IdempotentAnswer struct {
	Status  int
	Headers map[string]string
	Body    string // text
}

// BeginIdempotent takes the key of a request. The answer is nil if the request is
// to be carried out: FinishIdempotent or ReleaseIdempotent must then be called.
// Otherwise it is the answer of the first such request. Errors: ErrKeyReused,
// ErrKeyInFlight, ErrKeyAnswerLost.
func (s *Companion) BeginIdempotent(ctx context.Context, r *IdempotentRequest) (*IdempotentAnswer, error) {
	holder, err := newID()
	if err != nil {
		return nil, err
	}
	r.holder = holder
	var answer *IdempotentAnswer
	err = s.write(ctx, func(q *sqlgen.Queries) error {
		now := s.now()
		n, err := q.TakeIdempotencyKey(ctx, sqlgen.TakeIdempotencyKeyParams{
			Owner: r.Owner, IdempotencyKey: r.Key, RequestHash: r.Hash, Holder: holder,
			LockedUntil: column.At(now.Add(IdempotencyLease)), CreatedAt: column.At(now),
			CreatedAt_2: column.At(now.Add(-KeepIdempotencyKey)),
		})
		if err != nil || n > 0 {
			return err
		}
		row, err := first(q.GetIdempotencyKey(ctx, sqlgen.GetIdempotencyKeyParams{Owner: r.Owner, IdempotencyKey: r.Key}))
		switch {
		case err != nil:
			return err
		case row == nil:
			return ErrKeyInFlight // it was released this moment: the client tries again
		case row.RequestHash != r.Hash:
			return ErrKeyReused
		case row.Status == 0 && !row.CommittedAt.IsZero() && !row.LockedUntil.After(now):
			return ErrKeyAnswerLost
		case row.Status == 0:
			return ErrKeyInFlight
		}
		answer = &IdempotentAnswer{Status: int(row.Status), Body: row.Body}
		if err := json.Unmarshal([]byte(row.Headers), &answer.Headers); err != nil {
			return &RowError{"idempotency_keys", row.Holder, "headers", err}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("taking the idempotency key: %w", err)
	}
	return answer, nil
}

// FinishIdempotent keeps the answer for whoever repeats the request.
func (s *Companion) FinishIdempotent(ctx context.Context, r *IdempotentRequest, a IdempotentAnswer) error {
	headers, err := encode(a.Headers)
	if err != nil {
		return fmt.Errorf("keeping the answer of an idempotency key: %w", err)
	}
	err = s.write(ctx, func(q *sqlgen.Queries) error {
		_, err := q.AnswerIdempotencyKey(ctx, sqlgen.AnswerIdempotencyKeyParams{
			Owner: r.Owner, IdempotencyKey: r.Key, Holder: r.holder, Status: int64(a.Status), Headers: headers, Body: a.Body,
		})
		return err
	})
	if err != nil {
		return fmt.Errorf("keeping the answer of an idempotency key: %w", err)
	}
	return nil
}

// ReleaseIdempotent gives the key of a request back that has failed. Where it had
// done something before it failed, the key stays taken.
func (s *Companion) ReleaseIdempotent(ctx context.Context, r *IdempotentRequest) error {
	err := s.write(ctx, func(q *sqlgen.Queries) error {
		return q.ReleaseIdempotencyKey(ctx, sqlgen.ReleaseIdempotencyKeyParams{Owner: r.Owner, IdempotencyKey: r.Key, Holder: r.holder})
	})
	if err != nil {
		return fmt.Errorf("releasing the idempotency key: %w", err)
	}
	return nil
}

// commitRequest marks the request as done within the transaction of what it does.
func (s *Companion) commitRequest(ctx context.Context, q *sqlgen.Queries, r *IdempotentRequest) error {
	if r == nil {
		return nil
	}
	n, err := q.CommitIdempotencyKey(ctx, sqlgen.CommitIdempotencyKeyParams{
		Owner: r.Owner, IdempotencyKey: r.Key, Holder: r.holder, CommittedAt: column.At(s.now()),
	})
	if err == nil && n == 0 {
		err = errKeyTaken
	}
	if err != nil {
		return fmt.Errorf("committing the idempotency key: %w", err)
	}
	return nil
}

// keepOutbox is how long events are kept.
const keepOutbox = 30 * 24 * time.Hour

// PruneRequests deletes idempotency keys and outbox events that nobody waits for.
func (s *Companion) PruneRequests(ctx context.Context) error {
	err := s.write(ctx, func(q *sqlgen.Queries) error {
		now := s.now()
		if _, err := q.PruneIdempotencyKeys(ctx, column.At(now.Add(-KeepIdempotencyKey))); err != nil {
			return err
		}
		_, err := q.PruneOutbox(ctx, column.At(now.Add(-keepOutbox)))
		return err
	})
	if err != nil {
		return fmt.Errorf("pruning requests: %w", err)
	}
	return nil
}
