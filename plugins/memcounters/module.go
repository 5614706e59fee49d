package memcounters

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/quotagate/quotagate/caddymodule"
	"github.com/quotagate/quotagate/caddymodule/block"
)

func init() { caddy.RegisterModule(Module{}) }

// Module is the counters guest that counts in this process, exact for one
// gateway. A reload shares the open counters; a second process is refused.
type Module struct {
	// Log is the folder of the counters' log; relative to the working directory,
	// placeholders such as {env.STATE_DIR} are resolved when the config is
	// loaded. Default: the folder "counters" beside the local records.
	Log string `json:"log,omitempty"`

	dir string // Log, absolute; empty: in the host's state folder
}

// defaultFolder is the log's place in the host's state folder.
const defaultFolder = "counters"

// CaddyModule returns the module's information.
func (Module) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "quota.counters.memory", New: func() caddy.Module { return new(Module) }}
}

// Provision resolves the folder. Nothing is opened.
func (m *Module) Provision(caddy.Context) error {
	if m.Log == "" {
		return nil
	}
	dir, err := caddy.NewReplacer().ReplaceOrErr(m.Log, true, true)
	if err != nil {
		return fmt.Errorf("resolving log: %w", err)
	}
	if m.dir, err = filepath.Abs(dir); err != nil {
		return fmt.Errorf("resolving log: %w", err)
	}
	return nil
}

// Validate refuses a folder whose name no system takes.
func (m *Module) Validate() error {
	if strings.ContainsRune(m.dir, 0) {
		return fmt.Errorf("log: %q holds a zero byte", m.Log)
	}
	return nil
}

// Key is the log's folder: who names the same one shares its counters.
func (m *Module) Key(stateDir string) string { return "memory|" + m.folder(stateDir) }

// folder is the log's folder, absolute.
func (m *Module) folder(stateDir string) string {
	if m.dir != "" {
		return m.dir
	}
	return filepath.Join(stateDir, defaultFolder)
}

// Open opens the log and begins to count.
func (m *Module) Open(_ context.Context, env caddymodule.Env) (caddymodule.Counters, error) {
	e, err := Open(Options{Dir: m.folder(env.StateDir), Log: env.Log})
	if err != nil {
		return nil, err
	}
	return e, nil
}

// UnmarshalCaddyfile reads the guest's part of the option counters:
//
//	counters memory {
//	    log <dir>
//	}
func (m *Module) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the guest's name
	if err := block.NoArgs(d, "counters memory { log <dir> }"); err != nil {
		return err
	}
	return block.Parse(d, "counters memory", map[string]block.Option{"log": block.One("log <dir>", block.Text(&m.Log))})
}

// Interface guards.
var (
	_ caddy.Module              = Module{}
	_ caddy.Provisioner         = (*Module)(nil)
	_ caddy.Validator           = (*Module)(nil)
	_ caddyfile.Unmarshaler     = (*Module)(nil)
	_ caddymodule.CountersGuest = (*Module)(nil)
	_ caddymodule.Counters      = (*Engine)(nil)
)
