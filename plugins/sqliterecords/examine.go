package sqliterecords

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"github.com/quotagate/quotagate/caddymodule"
	"github.com/quotagate/quotagate/caddymodule/doctor"
	"github.com/quotagate/quotagate/caddymodule/store"
)

// Examine looks into the file, if it is there. It implements caddymodule.Examiner.
func (m *Module) Examine(ctx context.Context, env caddymodule.Env) []doctor.Finding {
	const check = "records"
	info, err := os.Stat(m.file)
	switch {
	case errors.Is(err, fs.ErrNotExist) && m.MigrateMode == MigrateAuto:
		return []doctor.Finding{doctor.Well(check, "%s is made at the start", m.file)}
	case errors.Is(err, fs.ErrNotExist):
		return []doctor.Finding{doctor.Fault(check, "there is no file %s", m.file).Do("caddy quota migrate up")}
	case err != nil:
		return []doctor.Finding{doctor.Fault(check, "looking at the file: %v", err)}
	case !info.Mode().IsRegular():
		return []doctor.Finding{doctor.Fault(check, "%s is no file", m.file)}
	}
	db, err := openDB(store.SQLiteDSN(m.file))
	if err != nil {
		return []doctor.Finding{doctor.Fault(check, "%v", err)}
	}
	s := store.New(db, store.Options{Engine: store.SQLite})
	s.SetDefaultPlan(env.DefaultPlan)
	s.SetHost(store.HostOptions{Users: (*store.HostTable)(env.Host.Users), Sessions: (*store.HostTable)(env.Host.Sessions)})
	findings := []doctor.Finding{doctor.Well(check, "the file %s, for gateways of this machine", m.file)}
	findings = append(findings, s.Examine(ctx, env.DefaultPlan, m.MigrateMode == MigrateAuto)...)
	if err := db.Close(); err != nil {
		findings = append(findings, doctor.Fault(check, "closing: %v", err))
	}
	return findings
}

// Interface guard.
var _ caddymodule.Examiner = (*Module)(nil)
