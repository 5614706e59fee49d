package store

import (
	"context"
	"database/sql"
	"errors"

	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// prepared runs the statements of one SQLite transaction, each prepared when it is
// first used: a flush runs the same few for hundreds of rows, and SQLite would
// compile the text anew for each. The driver of Postgres does this by itself.
type prepared struct {
	*sql.Tx
	statements map[string]*sql.Stmt
}

var _ sqlgen.DBTX = (*prepared)(nil)

func prepare(tx *sql.Tx) *prepared {
	return &prepared{Tx: tx, statements: map[string]*sql.Stmt{}}
}

// ExecContext implements sqlgen.DBTX. The context is looked at before each
// statement and not during it: SQLite's driver would start a goroutine each
// time to watch one that may end.
func (p *prepared) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ctx = context.WithoutCancel(ctx)
	stmt, ok := p.statements[query]
	if !ok {
		var err error
		if stmt, err = p.PrepareContext(ctx, query); err != nil {
			return nil, err
		}
		p.statements[query] = stmt
	}
	return stmt.ExecContext(ctx, args...)
}

// close frees the statements.
func (p *prepared) close() error {
	var errs []error
	for _, stmt := range p.statements {
		errs = append(errs, stmt.Close())
	}
	return errors.Join(errs...)
}
