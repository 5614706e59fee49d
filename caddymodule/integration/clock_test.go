package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// skewVariable is read by the gateways of skewedBinary: by how much their clock
// differs from the machine's, such as -10m.
const skewVariable = "QUOTA_TEST_SKEW"

// skewedBinary is the gateway with another clock on the wall. A process cannot be
// given one from outside: a time namespace moves the monotonic clock only, and Go
// asks the kernel without libc, past whatever would be preloaded. So it is the same
// source, compiled with a time.Now that adds a constant; nothing in the
// repository is replaced, and all that reads the clock is moved, Caddy and the
// drivers too.
var skewedBinary = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("asking for GOROOT: %w", err)
	}
	std := filepath.Join(strings.TrimSpace(string(out)), "src", "time")
	source, err := os.ReadFile(filepath.Join(std, "time.go"))
	if err != nil {
		return "", err
	}
	const reads = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	if strings.Count(string(source), reads) != 1 {
		return "", fmt.Errorf("time.Now of this Go is not as it was: teach skewedBinary where the clock is read")
	}
	dir, err := filepath.Abs("../../.bin/skewed")
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	replace := map[string]string{}
	for name, text := range map[string]string{
		"time.go": strings.Replace(string(source), reads, reads+"\tsec += skew\n", 1),
		"skew.go": `package time
import "syscall"
var skew = func() int64 {
	s, _ := syscall.Getenv("` + skewVariable + `")
	d, _ := ParseDuration(s)
	return int64(d / Second)
}()
`,
	} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return "", err
		}
		replace[filepath.Join(std, name)] = file
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, overlay, 0o600); err != nil {
		return "", err
	}
	return buildGateway("skewed/caddy", []string{"CGO_ENABLED=0"}, "-overlay", file)
})

// clock is what the gateway takes for the time; its site answers it at /clock.
func (g *gateway) clock(t testing.TB) time.Time {
	t.Helper()
	var ms int64
	if _, err := fmt.Sscan(string(g.do("GET", "/clock", "").want(t, 200).body), &ms); err != nil {
		t.Fatal(err)
	}
	return time.UnixMilli(ms)
}
