package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// ErrAccountNotFound says that neither an organization nor a user has the id (404).
var ErrAccountNotFound = errors.New("account not found")

// Account is who an account's id is: an organization or user that was seen, or a
// user of the directory; ErrAccountNotFound.
func (s *Companion) Account(ctx context.Context, id string) (quota.Subject, error) {
	if checkID(id) != nil {
		return "", ErrAccountNotFound
	}
	var known *sqlgen.GetAccountRow
	err := s.read(ctx, func(q *sqlgen.Queries) (err error) {
		known, err = first(q.GetAccount(ctx, id))
		return err
	})
	if err != nil {
		return "", fmt.Errorf("looking up account: %w", err)
	}
	if known != nil {
		return subjectOf(known.Kind, known.ID), nil
	}
	switch _, err := s.User(ctx, id); {
	case errors.Is(err, ErrUserNotFound):
		return "", ErrAccountNotFound
	case err != nil:
		return "", fmt.Errorf("looking up account: %w", err)
	}
	return quota.UserSubject(id), nil
}

// who is the actor as columns like created_by have it.
func (a Actor) who() string {
	if a.ID != "" {
		return a.ID
	}
	return a.Type
}
