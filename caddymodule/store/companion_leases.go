package store

import (
	"context"
	"fmt"
	"time"

	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// TakeLease takes or renews the named lease for ttl of the records' clock and
// says whether the holder has it.
func (s *Companion) TakeLease(ctx context.Context, name, holder string, ttl time.Duration) (bool, error) {
	var held bool
	err := s.write(ctx, func(q *sqlgen.Queries) error {
		var err error
		_, held, err = s.lease(ctx, q, name, holder, ttl)
		return err
	})
	return held, err
}

// ReleaseLease gives the lease up if the holder has it.
func (s *Companion) ReleaseLease(ctx context.Context, name, holder string) error {
	err := s.write(ctx, func(q *sqlgen.Queries) error {
		return q.ReleaseLease(ctx, sqlgen.ReleaseLeaseParams{Name: name, Holder: holder})
	})
	if err != nil {
		return fmt.Errorf("releasing lease %s: %w", name, err)
	}
	return nil
}
