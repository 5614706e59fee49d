package sqliterecords

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestFootprint(t *testing.T) {
	t.Parallel()
	f := footprint{path: filepath.Join(t.TempDir(), "db-wal")}
	now := time.Unix(1_700_000_000, 0)
	quiet := func(want bool, after time.Duration, why string) {
		t.Helper()
		now = now.Add(after)
		if got := f.quiet(now); got != want {
			t.Fatalf("%s: quiet %v, want %v", why, got, want)
		}
	}
	touch := func(text string, modified time.Time) {
		t.Helper()
		if err := os.WriteFile(f.path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(f.path, modified, modified); err != nil {
			t.Fatal(err)
		}
	}
	quiet(false, 0, "at first")
	quiet(true, pollEvery, "it is not there")
	touch("a", now)
	quiet(false, pollEvery, "it has come")
	quiet(false, settled-time.Millisecond, "the change is recent")
	quiet(true, time.Millisecond, "it is not any more")
	touch("ab", now)
	quiet(false, pollEvery, "another length")
	quiet(true, settled, "settled")
	touch("cd", now)
	quiet(false, pollEvery, "another time")
	quiet(true, settled, "settled")
	quiet(true, askAnyway-settled-time.Millisecond, "not long ago")
	quiet(false, time.Millisecond, "asked anyway")
}
