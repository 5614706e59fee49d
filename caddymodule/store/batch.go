package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// batchRows is how many rows Postgres is sent in one statement at most. Each
// statement is a round trip: a gateway of many users writes thousands of rows a
// second. SQLite is in the process, and gains nothing by longer statements.
const batchRows = 128

// batch is a transaction in which INSERTs of one row are sent many rows at a
// time. It knows nothing of keys: rows of one key must not meet in a statement
// that has an ON CONFLICT clause, so its user calls send between them, and once
// at the end.
type batch struct {
	sqlgen.DBTX
	most  int
	texts *sync.Map // of the store: lengthened to the text of the query

	query string
	width int
	args  []any
}

// batched is a batch over tx.
func (s *Store) batched(tx sqlgen.DBTX) *batch {
	if s.engine == SQLite {
		return &batch{DBTX: tx, most: 1}
	}
	return &batch{DBTX: tx, most: batchRows, texts: &s.texts}
}

// ExecContext implements sqlgen.DBTX for queries whose result nobody asks for:
// the row waits for others of the same query.
func (b *batch) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if b.most == 1 {
		return b.DBTX.ExecContext(ctx, query, args...)
	}
	if query != b.query {
		if err := b.send(ctx); err != nil {
			return nil, err
		}
		b.query, b.width = query, len(args)
	}
	b.args = append(b.args, args...)
	if len(b.args) == b.most*b.width {
		return waiting{}, b.send(ctx)
	}
	return waiting{}, nil
}

// send writes the rows that wait, in statements whose numbers of rows are powers
// of two: each length is a statement that the server prepares and keeps.
func (b *batch) send(ctx context.Context) error {
	for len(b.args) > 0 {
		rows := b.most
		for rows*b.width > len(b.args) {
			rows /= 2
		}
		query, err := b.text(rows)
		if err != nil {
			return err
		}
		if _, err := b.DBTX.ExecContext(ctx, query, b.args[:rows*b.width]...); err != nil {
			return err
		}
		b.args = b.args[rows*b.width:]
	}
	return nil
}

// waiting is the result of a row that was not sent yet.
type waiting struct{}

var errWaiting = errors.New("the row was not sent yet")

func (waiting) LastInsertId() (int64, error) { return 0, errWaiting }
func (waiting) RowsAffected() (int64, error) { return 0, errWaiting }

var (
	valuesClause = regexp.MustCompile(`(?s)^(.*\sVALUES\s*)(\([^()]*\))(.*)$`)
	parameter    = regexp.MustCompile(`\$[0-9]+`)
)

type lengthened struct {
	query string
	rows  int
}

// text is the query that inserts so many rows. Each is made once.
func (b *batch) text(rows int) (string, error) {
	key := lengthened{b.query, rows}
	if text, ok := b.texts.Load(key); ok {
		return text.(string), nil
	}
	text, err := inserting(b.query, rows, b.width)
	if err == nil {
		b.texts.Store(key, text)
	}
	return text, err
}

// together is a transaction in which an INSERT of one row that answers what it has
// inserted is sent with the arguments of many.
type together struct {
	sqlgen.DBTX
	args []any
}

// QueryContext implements sqlgen.DBTX.
func (t together) QueryContext(ctx context.Context, query string, one ...any) (*sql.Rows, error) {
	text, err := inserting(query, len(t.args)/len(one), len(one))
	if err != nil {
		return nil, err
	}
	return t.DBTX.QueryContext(ctx, text, t.args...)
}

// inserting is the text that inserts rows rows where query inserts one of width parameters.
func inserting(query string, rows, width int) (string, error) {
	parts := valuesClause.FindStringSubmatch(query)
	if parts == nil || parameter.MatchString(parts[1]+parts[3]) {
		return "", fmt.Errorf("no INSERT of one row: %s", query)
	}
	var text strings.Builder
	text.WriteString(parts[1])
	for row := range rows {
		if row > 0 {
			text.WriteString(", ")
		}
		text.WriteString(parameter.ReplaceAllStringFunc(parts[2], func(p string) string {
			n, _ := strconv.Atoi(p[1:]) // digits, by the expression
			return "$" + strconv.Itoa(row*width+n)
		}))
	}
	text.WriteString(parts[3])
	return text.String(), nil
}
