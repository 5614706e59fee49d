package memcounters

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/quotagate/quotagate/caddymodule"
	"github.com/quotagate/quotagate/caddymodule/doctor"
)

func TestExamine(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := &Module{}
	level := func(env caddymodule.Env) doctor.Level {
		t.Helper()
		findings := m.Examine(t.Context(), env)
		if len(findings) != 1 {
			t.Fatalf("%+v", findings)
		}
		return findings[0].Level
	}
	if got := level(caddymodule.Env{StateDir: dir}); got != doctor.OK {
		t.Errorf("a folder that is yet to be made: %s", got)
	}
	e, err := Open(Options{Dir: m.folder(dir)})
	if err != nil {
		t.Fatal(err)
	}
	if got := level(caddymodule.Env{StateDir: dir}); got != doctor.OK {
		t.Errorf("counters that a gateway holds: %s", got)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	m.dir = filepath.Join(dir, "file")
	if err := os.WriteFile(m.dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := level(caddymodule.Env{}); got != doctor.Fail {
		t.Errorf("a file in the place of the folder: %s", got)
	}
}
