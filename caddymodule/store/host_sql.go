package store

import (
	"strconv"

	"github.com/google/uuid"
)

// hostQuery is a statement about the host's tables that is made here, from
// quoted names and parameters alone. The host's table is called u in it: a name
// that is qualified is never taken for text, as SQLite would take one in quotes
// that no column has.
type hostQuery struct {
	engine Engine
	args   []any
}

// arg adds a parameter.
func (q *hostQuery) arg(v any) string {
	q.args = append(q.args, v)
	return "$" + strconv.Itoa(len(q.args))
}

// text adds a parameter whose type Postgres could not tell.
func (q *hostQuery) text(s string) string {
	if q.engine == SQLite {
		return q.arg(s)
	}
	return "CAST(" + q.arg(s) + " AS text)"
}

// value adds a parameter in the type of the host's column: the conversion is the
// engine's, of a text, so that an index of the column serves.
func (q *hostQuery) value(c hostColumn, s string) string {
	if q.engine == SQLite {
		return q.arg(s)
	}
	return "CAST(" + q.text(s) + " AS " + c.typ + ")"
}

// equals compares a column with a text in the column's own type; ok is false
// where the text is none of its values, so that nothing is found.
func (q *hostQuery) equals(c hostColumn, s string) (condition string, ok bool) {
	name := "u." + c.name
	switch c.class {
	case classInt:
		// Only as the engine itself writes it: 007 is another's id than 7 to us.
		n, err := strconv.ParseInt(s, 10, max(c.bits, 16))
		if err != nil || strconv.FormatInt(n, 10) != s {
			return "", false
		}
		if q.engine == SQLite {
			return name + " = " + q.arg(n), true
		}
	case classUUID:
		id, err := uuid.Parse(s)
		if err != nil || len(s) != len(id.String()) {
			return "", false
		}
	case classText:
	default:
		return "CAST(" + name + " AS text) = " + q.text(s), true
	}
	return name + " = " + q.value(c, s), true
}

// asText is a column as text, null where it is missing. Instants are in UTC.
func (q *hostQuery) asText(c hostColumn) string {
	name := "u." + c.name
	switch {
	case !c.there():
		return "CAST(NULL AS text)"
	case q.engine == SQLite:
	case c.class == classTime:
		return "to_char(" + name + ` AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`
	case c.class == classNaiveTime:
		return "to_char(CAST(" + name + ` AS timestamp), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`
	}
	return "CAST(" + name + " AS text)"
}

// status is the host's word for a user; a column that only says yes or no says
// active or inactive.
func (q *hostQuery) status(c hostColumn) string {
	if c.class == classBool {
		return "CASE WHEN u." + c.name + " THEN 'active' WHEN NOT u." + c.name + " THEN 'inactive' END"
	}
	return q.asText(c)
}

// revoked is the condition of sessions that were revoked.
func (q *hostQuery) revoked(c hostColumn) string {
	switch {
	case !c.there():
		return "1 = 0"
	case c.class == classBool:
		return "u." + c.name + " IS TRUE"
	}
	return "u." + c.name + " IS NOT NULL"
}
