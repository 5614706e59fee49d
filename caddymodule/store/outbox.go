package store

import (
	"context"
	"fmt"

	"github.com/quotagate/quotagate/caddymodule/store/column"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// OutboxEvent is what others are to be told of: it is written in the transaction
// of what it tells, and sent later.
type OutboxEvent struct {
	Type    string // such as subscription.updated
	Account string // the user or organization id that it concerns
	Payload any    // becomes JSON
}

func (s *Store) putOutbox(ctx context.Context, q *sqlgen.Queries, events []OutboxEvent) error {
	for _, e := range events {
		id, err := newID()
		if err != nil {
			return err
		}
		payload, err := encode(e.Payload)
		if err != nil {
			return fmt.Errorf("encoding the event %s: %w", e.Type, err)
		}
		err = q.PutOutbox(ctx, sqlgen.PutOutboxParams{
			ID: id, EventType: e.Type, AccountID: e.Account, Payload: payload, CreatedAt: column.At(s.now()),
		})
		if err != nil {
			return fmt.Errorf("writing the event %s: %w", e.Type, err)
		}
	}
	return nil
}
