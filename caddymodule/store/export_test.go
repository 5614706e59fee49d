package store

import (
	"context"

	"github.com/quotagate/quotagate/caddymodule/store/column"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// SuspendBoth suspends a user in our rows and the host's in one transaction, as
// services do that write both.
func (s *Companion) SuspendBoth(ctx context.Context, userID, word string) (w HostWrite, err error) {
	err = s.writeHost(ctx, func(q *sqlgen.Queries, host *hostTx) error {
		err := q.PutControl(ctx, sqlgen.PutControlParams{UserID: userID, State: controlSuspended, UpdatedAt: column.At(s.now())})
		if err == nil {
			w = host.setStatus(ctx, userID, word)
		}
		return err
	})
	return w, err
}
