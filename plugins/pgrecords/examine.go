package pgrecords

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/quotagate/quotagate/caddymodule"
	"github.com/quotagate/quotagate/caddymodule/doctor"
	"github.com/quotagate/quotagate/caddymodule/store"
)

const (
	// doctorChannel is not the one of changes: no gateway listens to it.
	doctorChannel = "quotagate_doctor"
	// hearing is how long a notification may take.
	hearing = 2 * time.Second
)

// Examine looks at the server, the role, the schema, the host's tables, and
// whether notifications come through. It implements caddymodule.Examiner.
func (m *Module) Examine(ctx context.Context, env caddymodule.Env) []doctor.Finding {
	const check = "records"
	db := m.connect()
	findings := m.examine(ctx, db, env)
	if err := db.Close(); err != nil {
		findings = append(findings, doctor.Fault(check, "closing: %v", err))
	}
	return findings
}

func (m *Module) examine(ctx context.Context, db *sql.DB, env caddymodule.Env) []doctor.Finding {
	const check = "records"
	asking, cancel := context.WithTimeout(ctx, time.Duration(m.ConnectTimeout))
	defer cancel()
	var version, role string
	var super bool
	err := db.QueryRowContext(asking, `SELECT current_setting('server_version'), current_user,
		(SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)`).Scan(&version, &role, &super)
	if err != nil {
		return []doctor.Finding{doctor.Fault(check, "%s cannot be asked: %v; callers have the compiled-in default plan meanwhile", m.place(), err)}
	}
	findings := []doctor.Finding{doctor.Well(check, "%s, Postgres %s", m.place(), version)}
	if super {
		findings = append(findings, doctor.Doubt(check, "the role %s is a superuser: a gateway needs little, see config/postgres/roles.sql", role).
			Do("psql -v ON_ERROR_STOP=1 -d "+m.config.Database+" -f config/postgres/roles.sql"))
	}
	s := store.New(db, store.Options{Engine: store.Postgres})
	s.SetDefaultPlan(env.DefaultPlan)
	s.SetHost(store.HostOptions{Users: (*store.HostTable)(env.Host.Users), Sessions: (*store.HostTable)(env.Host.Sessions)})
	findings = append(findings, s.Examine(ctx, env.DefaultPlan, m.MigrateMode == MigrateAuto)...)
	return append(findings, m.examineListener(ctx, db))
}

// examineListener sends a notification and waits for it, as changes are announced.
func (m *Module) examineListener(ctx context.Context, db *sql.DB) doctor.Finding {
	const check = "notifications"
	if m.listener == nil {
		return doctor.Well(check, "off: changes are looked for each %s", time.Duration(m.PollInterval))
	}
	ctx, cancel := context.WithTimeout(ctx, hearing)
	defer cancel()
	took, err := m.hear(ctx, db)
	if err != nil {
		return doctor.Doubt(check, "they do not come through: %v; changes are looked for each %s. Behind a pooler, name the server itself",
			err, time.Duration(m.PollInterval)).Do("records postgres ... {\n\tlisten {env.QUOTA_DIRECT_DSN}\n}")
	}
	return doctor.Well(check, "one came through in %s", took.Round(10*time.Microsecond))
}

func (m *Module) hear(ctx context.Context, db *sql.DB) (took time.Duration, err error) {
	conn, err := pgx.ConnectConfig(ctx, m.listener)
	if err != nil {
		return 0, err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(closing) // nothing of it is needed any more
	}()
	if _, err := conn.Exec(ctx, "LISTEN "+doctorChannel); err != nil {
		return 0, fmt.Errorf("listening: %w", err)
	}
	begun := time.Now()
	if _, err := db.ExecContext(ctx, "SELECT pg_notify($1, '')", doctorChannel); err != nil {
		return 0, fmt.Errorf("notifying: %w", err)
	}
	if _, err := conn.WaitForNotification(ctx); err != nil {
		return 0, fmt.Errorf("waiting: %w", err)
	}
	return time.Since(begun), nil
}

// Interface guard.
var _ caddymodule.Examiner = (*Module)(nil)
