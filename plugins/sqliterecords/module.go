// Package sqliterecords keeps the records in one SQLite file: the Caddy module
// quota.records.sqlite. It is there so that Quotagate runs without any server.
// The records themselves are package store's; this package opens the file,
// migrates it, and watches it for changes, those made by hand included.
package sqliterecords

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/quotagate/quotagate/caddymodule"
	"github.com/quotagate/quotagate/caddymodule/block"
	"github.com/quotagate/quotagate/caddymodule/store"
)

// DefaultPath is the file where none is configured.
const DefaultPath = "./data/quota.db"

// The words of `migrate`.
const (
	MigrateAuto  = "auto"  // Open brings the schema up to date
	MigrateCheck = "check" // Open only reports a schema that is missing or older
)

func init() { caddy.RegisterModule(new(Module)) }

// Module keeps records in a SQLite file.
type Module struct {
	// Path of the file, relative to the working directory. Default: ./data/quota.db.
	// Placeholders are replaced. Its folder is made if it is missing.
	Path string `json:"path,omitempty"`
	// MigrateMode is auto (the default) or check.
	MigrateMode string `json:"migrate,omitempty"`

	file string // absolute
}

// CaddyModule implements caddy.Module.
func (*Module) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "quota.records.sqlite", New: func() caddy.Module { return new(Module) }}
}

// Provision sets the defaults and resolves the path. It touches no file.
func (m *Module) Provision(caddy.Context) error {
	if m.Path == "" {
		m.Path = DefaultPath
	}
	if m.MigrateMode == "" {
		m.MigrateMode = MigrateAuto
	}
	path, err := caddy.NewReplacer().ReplaceOrErr(m.Path, true, true)
	if err != nil {
		return fmt.Errorf("resolving the path of the records: %w", err)
	}
	if err := checkPath(path); err != nil {
		return err
	}
	if m.file, err = filepath.Abs(path); err != nil {
		return fmt.Errorf("resolving the path of the records: %w", err)
	}
	return nil
}

// Validate checks the words.
func (m *Module) Validate() error {
	if err := checkMode(m.MigrateMode); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

func checkMode(mode string) error {
	if mode != MigrateAuto && mode != MigrateCheck {
		return fmt.Errorf("%q is neither %s nor %s", mode, MigrateAuto, MigrateCheck)
	}
	return nil
}

// checkPath refuses what SQLite would not take for a file.
func checkPath(path string) error {
	switch {
	case path == "":
		return errors.New("the path of the records is empty")
	case strings.ContainsRune(path, 0):
		return errors.New("the path of the records contains a zero byte")
	case strings.HasPrefix(path, ":"), strings.HasPrefix(path, "file:"):
		return fmt.Errorf("the path of the records, %q, is not a file's", path)
	}
	return nil
}

// Key implements caddymodule.RecordsGuest.
func (m *Module) Key() string { return "sqlite|" + m.MigrateMode + "|" + m.file }

// StateDir implements caddymodule.LocalState: the folder of the file.
func (m *Module) StateDir() string { return filepath.Dir(m.file) }

// Open implements caddymodule.RecordsGuest.
func (m *Module) Open(ctx context.Context, env caddymodule.Env) (caddymodule.Records, error) {
	r, err := open(ctx, m.file, m.MigrateMode, env)
	if err != nil {
		return nil, fmt.Errorf("opening records %s: %w", m.file, err)
	}
	return r, nil
}

// Migrate runs `up`, `down` (one version) or `status` on the file and reports to
// out. Only `up` makes a file that is missing.
func (m *Module) Migrate(ctx context.Context, command string, out io.Writer) (err error) {
	dsn := store.SQLiteDSN(m.file)
	_, err = os.Stat(m.file)
	switch missing := errors.Is(err, fs.ErrNotExist); {
	case missing && command == "up":
		err = makeFile(m.file)
	case missing && command == "status":
		dsn, err = ":memory:", nil // as empty as a file that is yet to be made
	}
	if err != nil {
		return fmt.Errorf("migrating records: %w", err)
	}
	db, err := openDB(dsn)
	if err != nil {
		return fmt.Errorf("migrating records: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return store.Migrate(ctx, db, store.SQLite, command, out)
}

// UnmarshalCaddyfile sets up the records from:
//
//	sqlite [<path>] {
//	    migrate auto | check
//	}
func (m *Module) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	if !d.Next() {
		return d.Err("the name of the records engine is missing")
	}
	if d.NextArg() {
		m.Path = d.Val()
		if err := checkPath(m.Path); err != nil {
			return d.WrapErr(err)
		}
	}
	if err := block.NoArgs(d, "records sqlite [<path>] { migrate auto | check }"); err != nil {
		return err
	}
	return block.Parse(d, "records sqlite", map[string]block.Option{
		"migrate": block.One("migrate auto | check", func(s string) error { m.MigrateMode = s; return checkMode(s) }),
	})
}

// Interface guards.
var (
	_ caddy.Provisioner        = (*Module)(nil)
	_ caddy.Validator          = (*Module)(nil)
	_ caddyfile.Unmarshaler    = (*Module)(nil)
	_ caddymodule.RecordsGuest = (*Module)(nil)
	_ caddymodule.LocalState   = (*Module)(nil)
)
