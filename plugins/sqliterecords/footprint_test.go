package sqliterecords

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestFootprint(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := footprint{paths: [...]string{filepath.Join(dir, "db"), filepath.Join(dir, "db-wal")}}
	now := time.Unix(1_700_000_000, 0)
	quiet := func(want bool, after time.Duration, why string) {
		t.Helper()
		now = now.Add(after)
		if got := f.quiet(now); got != want {
			t.Fatalf("%s: quiet %v, want %v", why, got, want)
		}
	}
	touch := func(file, text string, modified time.Time) {
		t.Helper()
		path := filepath.Join(dir, file)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, modified, modified); err != nil {
			t.Fatal(err)
		}
	}
	quiet(false, 0, "at first")
	quiet(true, pollEvery, "nothing is there")
	touch("db", "a", now)
	quiet(false, pollEvery, "the database has come")
	quiet(false, settled-time.Millisecond, "the change is recent")
	quiet(true, time.Millisecond, "it is not any more")
	for file, text := range map[string]string{"db": "ab", "db-wal": "a"} {
		touch(file, text, now)
		quiet(false, pollEvery, "another length")
		quiet(false, settled, "asked anyway")
		quiet(true, pollEvery, "settled")
		touch(file, text, now)
		quiet(false, pollEvery, "another time")
		quiet(false, settled, "asked anyway")
		quiet(true, pollEvery, "settled")
	}
	quiet(false, askAnyway, "asked anyway")
}
