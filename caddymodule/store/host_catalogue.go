package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
)

// lookUpTable asks the catalogue for a table; nil: it is not there, or must not be read.
func (s *Store) lookUpTable(ctx context.Context, o *HostTable, ours []string) (*hostTable, error) {
	byHost := make(map[string]string, len(ours))
	for _, name := range ours {
		byHost[o.column(name)] = name
	}
	schema, name := o.split()
	if s.engine == SQLite {
		return s.lookUpSQLite(ctx, schema, name, byHost)
	}
	return s.lookUpPostgres(ctx, schema, name, byHost)
}

// postgresColumns are the columns of a table that this role may read. A domain
// counts as the type below it.
const postgresColumns = `SELECT a.attname, format_type(t.oid, -1), CAST(t.typtype AS text), CAST(t.typcategory AS text),
    COALESCE((SELECT string_agg(e.enumlabel, E'\n' ORDER BY e.enumsortorder) FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid), ''),
    a.attnotnull AND c.relkind IN ('r', 'p'),
    COALESCE((SELECT NOT co.collisdeterministic FROM pg_catalog.pg_collation co WHERE co.oid = a.attcollation), FALSE)
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_catalog.pg_type d ON d.oid = a.atttypid
JOIN pg_catalog.pg_type t ON t.oid = CASE WHEN d.typtype = 'd' THEN d.typbasetype ELSE d.oid END
WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
    AND has_schema_privilege(n.oid, 'USAGE') AND has_column_privilege(c.oid, a.attnum, 'SELECT')`

// postgresDeferrable are the constraints of a table that may wait for the commit.
const postgresDeferrable = `SELECT cn.nspname, k.conname FROM pg_catalog.pg_constraint k
JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_namespace cn ON cn.oid = k.connamespace
WHERE n.nspname = $1 AND c.relname = $2 AND k.condeferrable ORDER BY k.conname`

func (s *Store) lookUpPostgres(ctx context.Context, schema, name string, byHost map[string]string) (*hostTable, error) {
	t := &hostTable{name: quoteIdent(schema) + "." + quoteIdent(name), schema: quoteIdent(schema), columns: map[string]hostColumn{}}
	found := false
	err := s.each(ctx, postgresColumns, []any{schema, name}, func(rows *sql.Rows) error {
		var column, typ, kind, category, labels string
		var notNull, folds bool
		if err := rows.Scan(&column, &typ, &kind, &category, &labels, &notNull, &folds); err != nil {
			return err
		}
		found = true
		if ours, ok := byHost[column]; ok {
			found := postgresColumn(column, typ, kind, category, labels)
			found.notNull, found.folds = notNull, folds
			t.columns[ours] = found
		}
		return nil
	})
	if err != nil || !found {
		return nil, err
	}
	err = s.each(ctx, postgresDeferrable, []any{schema, name}, func(rows *sql.Rows) error {
		var schema, name string
		if err := rows.Scan(&schema, &name); err != nil {
			return err
		}
		t.deferrable = append(t.deferrable, quoteIdent(schema)+"."+quoteIdent(name))
		return nil
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

func postgresColumn(name, typ, kind, category, labels string) hostColumn {
	c := hostColumn{name: quoteIdent(name), typ: typ}
	switch {
	case typ == "smallint":
		c.class, c.bits = classInt, 16
	case typ == "integer":
		c.class, c.bits = classInt, 32
	case typ == "bigint":
		c.class, c.bits = classInt, 64
	case typ == "uuid":
		c.class = classUUID
	case typ == "boolean":
		c.class = classBool
	case typ == "timestamp with time zone":
		c.class = classTime
	case typ == "timestamp without time zone", typ == "date":
		c.class = classNaiveTime
	case kind == "e":
		c.class, c.words = classEnum, strings.Split(labels, "\n")
	case category == "S":
		c.class = classText
	}
	return c
}

// lookUpSQLite asks the file. Its tables have no schema: public and main are
// words for the file itself.
func (s *Store) lookUpSQLite(ctx context.Context, schema, name string, byHost map[string]string) (*hostTable, error) {
	if schema != "public" && schema != "main" {
		return nil, nil
	}
	folded := make(map[string]string, len(byHost)) // SQLite's names have no case
	for column, ours := range byHost {
		folded[strings.ToLower(column)] = ours
	}
	t := &hostTable{name: quoteIdent(name), columns: map[string]hostColumn{}}
	found := false
	err := s.each(ctx, `SELECT name, type, "notnull" FROM pragma_table_info($1)`, []any{name}, func(rows *sql.Rows) error {
		var column, declared string
		var notNull bool
		if err := rows.Scan(&column, &declared, &notNull); err != nil {
			return err
		}
		found = true
		if ours, ok := folded[strings.ToLower(column)]; ok {
			found := sqliteColumn(column, declared)
			found.notNull = notNull
			t.columns[ours] = found
		}
		return nil
	})
	if err != nil || !found {
		return nil, err
	}
	return t, nil
}

// sqliteColumn follows the rules of affinity (https://sqlite.org/datatype3.html,
// 3.1), with the types that hosts declare in the names of other engines first.
func sqliteColumn(name, declared string) hostColumn {
	c := hostColumn{name: quoteIdent(name)}
	d := strings.ToUpper(declared)
	has := func(part string) bool { return strings.Contains(d, part) }
	switch {
	case has("BOOL"):
		c.class = classBool
	case has("TIME"), has("DATE"):
		c.class = classNaiveTime
	case has("INT"):
		c.class, c.bits = classInt, 64
	case has("CHAR"), has("CLOB"), has("TEXT"):
		c.class = classText
	}
	return c
}

// each calls f for each row of a query outside of any transaction.
func (s *Store) each(ctx context.Context, query string, args []any, f func(*sql.Rows) error) (err error) {
	rows, err := s.db.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		if err := f(rows); err != nil {
			return fmt.Errorf("reading a row: %w", err)
		}
	}
	return rows.Err()
}
