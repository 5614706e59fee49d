package store

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"

	"github.com/quotagate/quotagate/caddymodule/doctor"
)

// seenColumn is a column of the host as its catalogue has it.
type seenColumn struct {
	name, typ string
	// readable: the role may select it. indexed: an index of all rows begins with it.
	readable, indexable, indexed bool
}

// hostExam is the examination of one of the host's tables.
type hostExam struct {
	engine  Engine
	ours    string
	named   bool // by the option host
	option  HostTable
	columns []seenColumn
	usable  *hostTable // as the gateway sees it; nil: not at all

	seen    []string // what is there
	doubts  []string
	faults  []string
	indexes []string // to make
	suggest *HostTable
}

// examineHost looks at the host's tables. What the option host should say stands
// with the last table that would be better found or read by it.
func (s *Store) examineHost(ctx context.Context) []doctor.Finding {
	var o HostOptions
	if p := s.host.options.Load(); p != nil {
		o = *p
	}
	var exams []*hostExam
	var findings []doctor.Finding
	for _, t := range []struct {
		ours   string
		option *HostTable
	}{{hostUsers, o.Users}, {hostSessions, o.Sessions}} {
		e := &hostExam{engine: s.engine, ours: t.ours, named: t.option != nil, option: HostTable{Table: t.ours}}
		if e.named {
			e.option = *t.option
		}
		f, err := s.examineTable(ctx, e)
		if err != nil {
			f = doctor.Fault("host "+t.ours, "looking at the table: %v", err)
		}
		exams, findings = append(exams, e), append(findings, f)
	}
	for i, e := range slices.Backward(exams) {
		if e.suggest != nil {
			findings[i].Configure = strings.TrimSpace(hostBlock(exams) + "\n" + findings[i].Configure)
			break
		}
	}
	return findings
}

func (s *Store) examineTable(ctx context.Context, e *hostExam) (f doctor.Finding, err error) {
	schema, name := e.option.split()
	if e.columns, err = s.seenColumns(ctx, schema, name); err != nil {
		return f, err
	}
	if len(e.columns) == 0 {
		return s.lookElsewhere(ctx, e)
	}
	if e.usable, err = s.lookUpTable(ctx, &e.option, hostColumns(e.ours)); err != nil {
		return f, err
	}
	for _, ours := range hostColumns(e.ours) {
		e.column(ours)
	}
	e.index(schema, name)
	return e.finding(), nil
}

// lookElsewhere says what a table that is not there may be called instead.
func (s *Store) lookElsewhere(ctx context.Context, e *hostExam) (f doctor.Finding, err error) {
	check := "host " + e.ours
	others, err := s.namesLike(ctx, hostNames(e.ours))
	if err != nil {
		return f, err
	}
	instead := "sessions that the backends have revoked are not known"
	if e.ours == hostUsers {
		instead = "the callers learned from verified tokens are the directory"
	}
	f = doctor.Well(check, "no table %s; %s", e.option.Table, instead)
	switch {
	case e.named:
		f = doctor.Fault(check, "there is no table %s; %s", e.option.Table, instead)
	case len(others) > 0:
		f = doctor.Doubt(check, "no table %s; %s. There is: %s", e.option.Table, instead, strings.Join(others, ", "))
	}
	if len(others) == 0 {
		return f, nil
	}
	e.suggest = &HostTable{Table: others[0]}
	schema, name := e.suggest.split()
	if e.columns, err = s.seenColumns(ctx, schema, name); err != nil {
		return f, err
	}
	for _, ours := range hostColumns(e.ours) {
		if e.find(ours) == nil {
			e.propose(ours)
		}
	}
	return f, nil
}

// column judges what there is of one of our columns.
func (e *hostExam) column(ours string) {
	theirs := e.option.column(ours)
	c := e.find(theirs)
	needed := map[string]string{
		"id": "the table cannot be used", "user_id": "the table cannot be used",
		"status": "whom the backends suspend is not refused", "revoked_at": "what the backends revoke is not refused",
	}[ours]
	switch {
	case c == nil && e.option.Columns[ours] != "":
		e.faults = append(e.faults, fmt.Sprintf("no column %s, which the option host names for %s", theirs, ours))
		e.propose(ours)
	case c == nil:
		proposed := e.propose(ours)
		if needed != "" {
			e.doubts = append(e.doubts, fmt.Sprintf("no column %s: %s", theirs, needed))
		} else if proposed {
			e.doubts = append(e.doubts, "no column "+theirs)
		} else {
			e.seen = append(e.seen, "no "+ours)
		}
	case !c.readable && needed != "":
		e.doubts = append(e.doubts, fmt.Sprintf("the role may not read %s: %s", theirs, needed))
	case !c.readable:
		e.seen = append(e.seen, ours+" not for this role")
	default:
		text := ours + " "
		if theirs != ours {
			text += "from " + theirs + " "
		}
		e.seen = append(e.seen, text+c.typ)
		e.judgeType(ours)
	}
}

// judgeType doubts types of which the values say nothing to us.
func (e *hostExam) judgeType(ours string) {
	if e.usable == nil {
		return
	}
	switch c := e.usable.columns[ours]; {
	case ours == "id" || ours == "user_id":
		if c.class == classOther && e.engine == Postgres {
			e.doubts = append(e.doubts, fmt.Sprintf("%s is compared as text, for which no index serves", ours))
		}
	case ours == "status" && c.class == classEnum && !slices.ContainsFunc(c.words, KeptOut):
		e.doubts = append(e.doubts, "none of the words of status keeps anybody out: "+strings.Join(c.words, ", "))
	case ours == "status" && c.class == classInt:
		e.doubts = append(e.doubts, "status is a number, of which none keeps anybody out")
	}
}

// index asks for an index on the column by which rows are found.
func (e *hostExam) index(schema, name string) {
	ours := "id"
	if e.ours == hostSessions {
		ours = "user_id"
	}
	c := e.find(e.option.column(ours))
	if c == nil || !c.indexable || c.indexed {
		return
	}
	e.doubts = append(e.doubts, "no index begins with "+c.name+": each user's rows are looked for in all of them")
	table, concurrently := quoteIdent(schema)+"."+quoteIdent(name), "CONCURRENTLY "
	if e.engine == SQLite {
		table, concurrently = quoteIdent(name), ""
	}
	e.indexes = append(e.indexes, fmt.Sprintf("CREATE INDEX %sON %s (%s);", concurrently, table, quoteIdent(c.name)))
}

func (e *hostExam) finding() doctor.Finding {
	check, text := "host "+e.ours, e.option.Table+": "+strings.Join(e.seen, ", ")
	f := doctor.Well(check, "%s", text)
	if problems := slices.Concat(e.faults, e.doubts); len(problems) > 0 {
		f = doctor.Doubt(check, "%s; %s", text, strings.Join(problems, "; "))
	}
	if len(e.faults) > 0 {
		f.Level = doctor.Fail
	}
	return f.Do(strings.Join(e.indexes, "\n"))
}

func (e *hostExam) find(name string) *seenColumn {
	for i, c := range e.columns {
		if c.name == name || e.engine == SQLite && strings.EqualFold(c.name, name) {
			return &e.columns[i]
		}
	}
	return nil
}

// propose takes a column whose name says the same for ours, unless it is another's.
func (e *hostExam) propose(ours string) bool {
	for _, c := range e.columns {
		if !slices.Contains(alikeColumns(e.ours, ours), strings.ToLower(strings.ReplaceAll(c.name, "_", ""))) || e.taken(c.name) {
			continue
		}
		if e.suggest == nil {
			e.suggest = &HostTable{Table: e.option.Table}
		}
		if e.suggest.Columns == nil {
			e.suggest.Columns = map[string]string{}
			for ours, theirs := range e.option.Columns {
				if e.find(theirs) != nil {
					e.suggest.Columns[ours] = theirs
				}
			}
		}
		e.suggest.Columns[ours] = c.name
		return true
	}
	return false
}

func (e *hostExam) taken(name string) bool {
	if slices.Contains(hostColumns(e.ours), name) && e.option.Columns[name] == "" {
		return true
	}
	for _, options := range []*HostTable{&e.option, e.suggest} {
		if options == nil {
			continue
		}
		for _, theirs := range options.Columns {
			if theirs == name {
				return true
			}
		}
	}
	return false
}

// hostBlock is the option host as it should stand in the Caddyfile.
func hostBlock(exams []*hostExam) string {
	var b strings.Builder
	b.WriteString("host {\n")
	for _, e := range exams {
		t := e.suggest
		if t == nil && e.named {
			t = &e.option
		}
		if t == nil {
			continue
		}
		b.WriteString("\t" + e.ours + " " + t.Table)
		if len(t.Columns) > 0 {
			b.WriteString(" {\n")
			for _, ours := range hostColumns(e.ours) {
				if theirs := t.Columns[ours]; theirs != "" {
					b.WriteString("\t\t" + ours + " " + theirs + "\n")
				}
			}
			b.WriteString("\t}")
		}
		b.WriteString("\n")
	}
	b.WriteString("}")
	return b.String()
}

// hostNames are what hosts call such a table, the likeliest first.
func hostNames(ours string) []string {
	if ours == hostUsers {
		return []string{"users", "user", "accounts", "account", "auth_user", "app_users", "app_user", "members", "customers"}
	}
	return []string{"sessions", "session", "user_sessions", "auth_sessions", "login_sessions", "refresh_tokens"}
}

// alikeColumns are what hosts call one of our columns, in small letters and without underscores.
func alikeColumns(table, ours string) []string {
	switch ours {
	case "id":
		if table == hostUsers {
			return []string{"userid", "accountid", "uid", "uuid", "guid", "pk"}
		}
		return []string{"sessionid", "sid", "jti", "uuid", "pk"}
	case "user_id":
		return []string{"userid", "user", "accountid", "uid", "ownerid", "owner"}
	case "email":
		return []string{"emailaddress", "mail", "useremail"}
	case "username":
		return []string{"username", "login", "loginname", "handle", "nickname"}
	case "status":
		return []string{"state", "userstatus", "accountstatus", "isactive", "active", "enabled", "isenabled"}
	case "created_at":
		return []string{"created", "createdat", "createdon", "datejoined", "registeredat", "signedupat", "creationdate"}
	case "last_seen_at":
		return []string{"lastseen", "lastseenat", "lastusedat", "lastactiveat", "lastactivity", "lastactivityat"}
	case "user_agent":
		return []string{"useragent", "agent", "device"}
	case "ip":
		return []string{"ipaddress", "ipaddr", "clientip", "remoteip", "remoteaddr"}
	case "revoked_at":
		return []string{"revoked", "revokedat", "isrevoked", "invalidatedat", "loggedoutat", "terminatedat"}
	}
	return nil
}

// postgresSeen are all columns of a table, whoever may read them.
const postgresSeen = `SELECT a.attname, format_type(a.atttypid, a.atttypmod),
    has_schema_privilege(n.oid, 'USAGE') AND has_column_privilege(c.oid, a.attnum, 'SELECT'), c.relkind IN ('r', 'p', 'm'),
    EXISTS (SELECT 1 FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisvalid AND i.indpred IS NULL AND i.indkey[0] = a.attnum)
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY a.attnum`

// sqliteSeen are the same in a file. The first column of a primary key has its index.
const sqliteSeen = `SELECT c.name, lower(c.type), 1, EXISTS (SELECT 1 FROM sqlite_master m WHERE m.type = 'table' AND lower(m.name) = lower($1)),
    c.pk = 1 OR EXISTS (SELECT 1 FROM pragma_index_list($1) l JOIN pragma_index_info(l.name) i
        WHERE l.partial = 0 AND i.seqno = 0 AND i.name = c.name)
FROM pragma_table_info($1) c ORDER BY c.cid`

func (s *Store) seenColumns(ctx context.Context, schema, name string) ([]seenColumn, error) {
	query, args := postgresSeen, []any{schema, name}
	if s.engine == SQLite {
		if schema != "public" && schema != "main" {
			return nil, nil
		}
		query, args = sqliteSeen, []any{name}
	}
	var columns []seenColumn
	err := s.each(ctx, query, args, func(rows *sql.Rows) error {
		var c seenColumn
		err := rows.Scan(&c.name, &c.typ, &c.readable, &c.indexable, &c.indexed)
		columns = append(columns, c)
		return err
	})
	return columns, err
}

// namesLike are the tables with one of the names, in any case of letters and any
// schema but ours and the engine's own, in the order of the names.
func (s *Store) namesLike(ctx context.Context, names []string) ([]string, error) {
	list := "'" + strings.Join(names, "', '") + "'" // constants
	query := `SELECT lower(c.relname), CASE n.nspname WHEN 'public' THEN '' ELSE n.nspname || '.' END || c.relname
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT IN ('information_schema', '` + Schema + `')
    AND n.nspname NOT LIKE 'pg\_%' AND lower(c.relname) IN (` + list + `) ORDER BY 2`
	if s.engine == SQLite {
		// Our own tables are in the same file.
		query = "SELECT lower(name), name FROM sqlite_master WHERE type IN ('table', 'view') AND lower(name) <> 'accounts' AND lower(name) IN (" + list + ") ORDER BY 2"
	}
	found := map[string][]string{}
	err := s.each(ctx, query, nil, func(rows *sql.Rows) error {
		var folded, name string
		err := rows.Scan(&folded, &name)
		found[folded] = append(found[folded], name)
		return err
	})
	var ordered []string
	for _, name := range names {
		ordered = append(ordered, found[name]...)
	}
	return ordered, err
}
