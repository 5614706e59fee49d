package integration

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/rogpeppe/go-internal/testscript"

	_ "github.com/quotagate/quotagate" // every module, and their commands
	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

// TestMain lets scripts call this binary as `caddy`.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"caddy": caddycmd.Main})
}

// TestScripts runs the commands as an operator does. A script finds free
// addresses in $SITE and $ADMIN, and the Caddyfile of the archive in its folder.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("SITE", gatetest.FreeAddr(t))
			e.Setenv("ADMIN", gatetest.FreeAddr(t))
			e.Setenv("JWT_SECRET", secret)
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("XDG_DATA_HOME", filepath.Join(e.WorkDir, ".xdg"))
			e.Setenv("XDG_CONFIG_HOME", filepath.Join(e.WorkDir, ".xdg"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"await": awaitURL, "request": request, "retry": retry,
		},
	})
}

// awaitURL is the script command `await <url>`: it waits until the URL answers 200.
func awaitURL(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: await <url>")
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		res, err := http.Get(args[0])
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%s does not answer 200 within %s: %v", args[0], patience, err)
		}
	}
}

// retry is the script command `retry <command line> <pattern>`: it repeats the
// command until its standard output matches, for at most the time in which a
// change of the records must be seen.
func retry(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: retry <command line> <pattern>")
	}
	pattern := regexp.MustCompile("(?m)" + args[1])
	line := strings.Fields(os.Expand(args[0], ts.Getenv))
	for deadline := time.Now().Add(noticeMax); ; {
		late := time.Now().After(deadline)
		ts.Check(ts.Exec(line[0], line[1:]...))
		out := ts.ReadFile("stdout")
		if pattern.MatchString(out) {
			return
		}
		if late {
			ts.Fatalf("%s: not within %s: %s\n%s", line, noticeMax, pattern, out)
		}
	}
}

// request is the script command `request <status> <method> <url> [<token>]`.
func request(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 || len(args) > 4 {
		ts.Fatalf("usage: request <status> <method> <url> [<token>]")
	}
	req, err := http.NewRequest(args[1], args[2], nil)
	ts.Check(err)
	if len(args) == 4 {
		req.Header.Set("Authorization", "Bearer "+args[3])
	}
	res, err := http.DefaultClient.Do(req)
	ts.Check(err)
	ts.Check(res.Body.Close())
	if got := res.Status[:3]; got != args[0] {
		ts.Fatalf("%s %s: status %s, want %s", args[1], args[2], got, args[0])
	}
}
