package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/quotagate/quotagate/caddymodule/store/column"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// directoryQuery selects users of one table, with our rows beside them.
type directoryQuery struct {
	hostQuery
	table *hostTable
	plans *catalogue
	grace time.Duration
	now   time.Time
	where []string // of the table itself
	// beside are the conditions that need our rows beside it.
	beside []string
	// continued: the page begins behind a cursor.
	continued bool
	// totals makes a page count all that match, into total.
	totals bool
	total  int64
}

// totalColumn is what a page calls the number of all that match: no host calls a
// column so.
const totalColumn = `"quotagate: all that match"`

func (s *Companion) newDirectoryQuery(t *hostTable, plans *catalogue) *directoryQuery {
	q := &directoryQuery{hostQuery: hostQuery{engine: s.engine}, table: t, plans: plans, grace: s.grace, now: s.now()}
	if t.condition != "" {
		q.where = append(q.where, t.condition)
	}
	return q
}

func (q *directoryQuery) id() string { return q.asText(q.table.columns["id"]) }

// effective is DirectoryUser.Status in SQL.
func (q *directoryQuery) effective() string {
	return "CASE WHEN c.state = 'deleted' THEN 'deleted'" +
		" WHEN c.state = 'suspended' AND (c.until IS NULL OR c.until > " + q.instant(q.now) + ") THEN 'suspended'" +
		" ELSE COALESCE(LOWER(" + q.status(q.table.columns["status"]) + "), 'active') END"
}

func (q *directoryQuery) filter(f UserFilter) {
	if f.Search != "" {
		var any []string
		for _, ours := range []string{"email", "username"} {
			if c := q.table.columns[ours]; c.there() {
				any = append(any, q.contains(c, f.Search))
			}
		}
		if is, ok := q.equals(q.table.columns["id"], f.Search); ok {
			any = append(any, is)
		}
		q.where = append(q.where, "("+strings.Join(append(any, "1 = 0"), " OR ")+")")
	}
	if f.Status != "" {
		q.beside = append(q.beside, q.effective()+" = LOWER("+q.text(f.Status)+")")
	}
	if f.Plan != "" {
		q.beside = append(q.beside, q.onPlan(f.Plan))
	}
}

// contains is the condition of texts that hold another one, in any case of
// letters. Nothing in it is a pattern; in Postgres it is LIKE all the same, for
// which an index of trigrams serves.
func (q *directoryQuery) contains(c hostColumn, text string) string {
	if q.engine == SQLite {
		return "INSTR(LOWER(" + q.asText(c) + "), LOWER(" + q.text(text) + ")) > 0"
	}
	literal := strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(text)
	column := q.asText(c)
	if c.folds {
		column += ` COLLATE pg_catalog."default"`
	}
	return "LOWER(" + column + ") LIKE LOWER(" + q.text("%"+literal+"%") + `) ESCAPE '\'`
}

// onPlan is the condition of users whose plan is the named one now.
func (q *directoryQuery) onPlan(name string) string {
	row := q.plans.byName(name)
	if row == nil {
		return "1 = 0"
	}
	is := q.planID() + " = " + q.text(row.ID)
	if q.plans.defaultRow != nil && q.plans.defaultRow.ID == row.ID {
		is = "COALESCE(" + is + ", TRUE)"
	}
	return "(" + is + ")"
}

// planID is the plan that a user has now by a subscription, null for the default
// one: judge, in SQL.
func (q *directoryQuery) planID() string {
	now := q.instant(q.now)
	pending := "s.pending_plan_id IS NOT NULL AND s.pending_effective_at IS NOT NULL"
	due := pending + " AND s.pending_effective_at <= " + now
	given := "s.source <> 'stripe' AND s.status <> 'past_due'"
	ended := strings.Join([]string{
		"s.ended_at <= " + now,
		"s.status = 'trial' AND s.trial_end <= " + now,
		"s.status = 'past_due' AND s.past_due_since <= " + q.instant(q.now.Add(-q.grace)),
		"s.cancel_at_period_end AND s.current_period_end <= " + now,
		"NOT s.cancel_at_period_end AND " + given + " AND " + due + " AND s.pending_period_end <= " + now,
		"NOT s.cancel_at_period_end AND " + given + " AND NOT (" + pending + ") AND s.current_period_end <= " + now,
	}, " OR ")
	return "CASE WHEN s.status NOT IN ('active', 'trial', 'past_due') THEN NULL WHEN " + ended + " THEN NULL WHEN " + due +
		" THEN s.pending_plan_id ELSE s.plan_id END"
}

// byStatusAndPlan counts the users of each status and plan.
func (q *directoryQuery) byStatusAndPlan() string {
	return "SELECT " + q.effective() + ", " + q.planID() + ", COUNT(*)" + q.from() + " GROUP BY 1, 2"
}

// from is the table with all of our rows beside it, and the conditions.
func (q *directoryQuery) from() string {
	return " FROM " + q.table.name + " u" + q.ours() + q.conditions()
}

// ours are our rows beside those of u, at most one of each.
func (q *directoryQuery) ours() string {
	return " LEFT JOIN user_controls c ON c.user_id = " + q.id() +
		" LEFT JOIN admins a ON a.user_id = " + q.id() +
		" LEFT JOIN subscriptions s ON s.account_id = " + q.id() + " AND s.is_current"
}

func (q *directoryQuery) conditions() string {
	all := slices.Concat(q.where, q.beside)
	if len(all) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(all, " AND ")
}

// matching is the table with the conditions, and no more beside it than they need.
func (q *directoryQuery) matching() string {
	if len(q.beside) > 0 {
		return q.from()
	}
	return " FROM " + q.table.name + " u" + q.conditions()
}

func (q *directoryQuery) count() string { return "SELECT COUNT(*)" + q.matching() }

// selection is the select of users, with the text by which they are sorted last.
func (q *directoryQuery) selection(sorted string) string {
	return "SELECT " + q.listed(sorted) + q.from()
}

func (q *directoryQuery) listed(sorted string) string {
	return strings.Join([]string{
		q.id(), q.asText(q.table.columns["email"]), q.asText(q.table.columns["username"]),
		q.status(q.table.columns["status"]), q.effective(), "a.user_id IS NOT NULL", q.asText(q.table.columns["created_at"]),
		"s.id", "s.plan_id", "s.source", "s.status", "s.trial_end", "s.current_period_end", "s.cancel_at_period_end",
		"s.cancelled_at", "s.ended_at", "s.past_due_since", "s.pending_plan_id", "s.pending_effective_at", "s.pending_period_end",
		sorted, q.totalOr("NULL"),
	}, ", ")
}

// totalOr is the total, or what stands in its place.
func (q *directoryQuery) totalOr(none string) string {
	if q.totals {
		return "u." + totalColumn
	}
	return none
}

// own are the table's columns that are there, as they are called in it.
func (q *directoryQuery) own() string {
	var names []string
	for _, ours := range hostColumns(hostUsers) {
		// One column may have two of our names.
		if c := q.table.columns[ours]; c.there() && !slices.Contains(names, "u."+c.name) {
			names = append(names, "u."+c.name)
		}
	}
	return strings.Join(names, ", ")
}

// userOrder is the order of a list.
type userOrder struct {
	column  string
	reverse bool
}

// check fills in the defaults.
func (p *UserPage) check() (userOrder, error) {
	if p.Limit == 0 {
		p.Limit = defaultPage
	}
	if p.Limit < 1 || p.Limit > maxPage {
		return userOrder{}, invalid("limit", "want 1 to %d, got %d", maxPage, p.Limit)
	}
	if p.Skip < 0 || p.Skip > 0 && p.After != "" {
		return userOrder{}, invalid("skip", "want 0 or more, and not together with a cursor")
	}
	if p.Sort == "" {
		p.Sort = "-created_at"
	}
	name, reverse := strings.CutPrefix(p.Sort, "-")
	if !slices.Contains([]string{"id", "email", "username", "created_at"}, name) {
		return userOrder{}, invalid("sort", "%q is none of id, email, username, created_at, with or without a - before it", p.Sort)
	}
	return userOrder{name, reverse}, nil
}

// page is the statement of a page.
func (q *directoryQuery) page(o userOrder, p UserPage) (string, error) {
	id := "u." + q.table.columns["id"].name
	direction, beyond := "", " > "
	if o.reverse {
		direction, beyond = " DESC", " < "
	}
	by := q.table.columns[o.column]
	if o.column == "id" || !by.there() {
		by = hostColumn{}
	}
	sorted, order := "NULL", id+direction
	if by.there() {
		last := " NULLS LAST"
		if by.notNull { // then an index in the usual order serves
			last = ""
		}
		sorted, order = q.exact(by), "u."+by.name+direction+last+", "+order
	}
	if p.After != "" {
		after, err := readCursor(p.After, o)
		if err != nil {
			return "", err
		}
		behind, err := q.behind(by, after, id, beyond)
		if err != nil {
			return "", err
		}
		q.where, q.continued = append(q.where, behind), true
	}
	// One more than asked for shows whether there is a next page. Our rows are
	// looked up for those of the page alone.
	page := "SELECT " + q.own()
	if q.totals {
		page += ", COUNT(*) OVER () AS " + totalColumn
	}
	page += q.matching() + " ORDER BY " + order + " LIMIT " + strconv.Itoa(p.Limit+1)
	if p.Skip > 0 {
		page += " OFFSET " + strconv.Itoa(p.Skip)
	}
	return "SELECT " + q.listed(sorted) + " FROM (" + page + ") u" + q.ours() + " ORDER BY " + order, nil
}

// behind is the condition of what follows a cursor.
func (q *directoryQuery) behind(by hostColumn, after cursor, id, beyond string) (string, error) {
	own := q.table.columns["id"]
	if _, ok := (&hostQuery{engine: q.engine}).equals(own, after.ID); !ok {
		return "", errCursor() // of another table, or made up
	}
	if by.there() && by.notNull && after.At != nil {
		return "(u." + by.name + ", " + id + ")" + beyond + "(" + q.value(by, *after.At) + ", " + q.value(own, after.ID) + ")", nil
	}
	same := id + beyond + q.value(own, after.ID)
	switch {
	case !by.there():
		return same, nil
	case after.At == nil:
		return "(u." + by.name + " IS NULL AND " + same + ")", nil
	}
	value := q.value(by, *after.At)
	return "(u." + by.name + beyond + value + " OR u." + by.name + " IS NULL OR (u." + by.name + " = " + value + " AND " + same + "))", nil
}

// exact is a column as the text that value makes the same value of again.
func (q *directoryQuery) exact(c hostColumn) string {
	if q.engine == Postgres {
		return "CAST(u." + c.name + " AS text)"
	}
	return "CAST(u." + c.name + " AS TEXT)"
}

// check refuses what no engine can compare with.
func (f UserFilter) check() error {
	for _, t := range []struct{ field, text string }{{"search", f.Search}, {"status", f.Status}, {"plan", f.Plan}} {
		if !isText(t.text) {
			return invalid(t.field, "contains a zero byte, or is not UTF-8")
		}
	}
	return nil
}

func (o userOrder) String() string {
	if o.reverse {
		return "-" + o.column
	}
	return o.column
}

// run reads a page of limit users, and where the next one begins.
func (q *directoryQuery) run(ctx context.Context, tx sqlgen.DBTX, text string, o userOrder, limit int) (users []DirectoryUser, next string, err error) {
	rows, err := tx.QueryContext(ctx, text, q.args...)
	if err != nil {
		return nil, "", q.cursorFault(err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	var last cursor
	for rows.Next() {
		if len(users) == limit {
			if next, err = last.text(); err != nil {
				return nil, "", err
			}
			break
		}
		u, at, err := q.scan(rows)
		if err != nil {
			return nil, "", fmt.Errorf("reading a user: %w", err)
		}
		users = append(users, u)
		last = cursor{Sort: o.String(), ID: u.ID, At: at}
	}
	return users, next, q.cursorFault(rows.Err())
}

func (q *directoryQuery) scan(rows *sql.Rows) (u DirectoryUser, at *string, err error) {
	var (
		id, email, username, status, created, sorted sql.NullString
		subscription, source, state                  sql.NullString
		cancels                                      sql.NullBool
		total                                        sql.NullInt64
		row                                          sqlgen.Subscription
	)
	err = rows.Scan(&id, &email, &username, &status, &u.Status, &u.Superadmin, &created,
		&subscription, &row.PlanID, &source, &state, &row.TrialEnd, &row.CurrentPeriodEnd, &cancels,
		&row.CancelledAt, &row.EndedAt, &row.PastDueSince, &row.PendingPlanID, &row.PendingEffectiveAt, &row.PendingPeriodEnd, &sorted, &total)
	if err != nil {
		return u, nil, err
	}
	q.total = total.Int64
	u.ID, u.Email, u.Username, u.HostStatus, u.CreatedAt = id.String, pointer(email), pointer(username), pointer(status), hostTime(created)
	var current *sqlgen.Subscription
	if subscription.Valid {
		row.ID, row.Source, row.Status, row.CancelAtPeriodEnd = subscription.String, source.String, state.String, cancels.Bool
		current = &row
	}
	st := judge(current, q.now, q.grace)
	u.Subscription = st.status
	if plan, err := q.plans.rowOf(st.planID); err == nil {
		u.Plan = plan.Name
	}
	return u, pointer(sorted), nil
}

// instant adds a parameter of a column of ours.
func (q *hostQuery) instant(t time.Time) string {
	if q.engine == SQLite {
		return q.arg(column.At(t))
	}
	return "CAST(" + q.arg(column.At(t)) + " AS timestamptz)"
}
