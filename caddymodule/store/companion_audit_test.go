package store_test

import (
	"strings"
	"testing"

	"github.com/quotagate/quotagate/caddymodule/store"
)

// A head that is accepted is one: its own text reads as the same.
func FuzzParseAuditHead(f *testing.F) {
	for _, s := range []string{
		"42:9f86d081884c7", "0:" + strings.Repeat("0", 64), "1:ABCDEF0123456", "1:", ":9f86d081884c7", "-1:9f86d081884c7", "1:9f86d081884c", "1:xyzxyzxyzxyzx",
		"1:" + strings.Repeat("a", 65), "9223372036854775808:9f86d081884c7", "1:9f86d081884c7:2", " 1:9f86d081884c7", "",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h, err := store.ParseAuditHead(s)
		if err != nil {
			return
		}
		if again, err := store.ParseAuditHead(h.String()); err != nil || again != h || h.Seq < 0 || len(h.Hash) < 13 || len(h.Hash) > 64 {
			t.Fatalf("%q reads as %s, and that as %s, %v", s, h, again, err)
		}
	})
}
