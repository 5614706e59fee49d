package memcounters

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"github.com/quotagate/quotagate/caddymodule"
	"github.com/quotagate/quotagate/caddymodule/doctor"
)

// Examine looks at the log's folder from outside: the counters are the running
// gateway's. It implements caddymodule.Examiner.
func (m *Module) Examine(_ context.Context, env caddymodule.Env) []doctor.Finding {
	const check = "counters"
	dir := m.folder(env.StateDir)
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []doctor.Finding{doctor.Well(check, "in the process; the folder of their log, %s, is made at the start", dir)}
	case err != nil:
		return []doctor.Finding{doctor.Fault(check, "looking at the folder of their log: %v", err)}
	case !info.IsDir():
		return []doctor.Finding{doctor.Fault(check, "%s, the folder of their log, is a file", dir).Do("counters memory {\n\tlog <another folder>\n}")}
	}
	return []doctor.Finding{doctor.Well(check, "in the process, logged in %s: exact for one gateway, more of them need counters redis", dir)}
}

// Interface guard.
var _ caddymodule.Examiner = (*Module)(nil)
