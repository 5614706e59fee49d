package gatetest

import (
	"os"
	"testing"
)

// Missing ends a test that needs what this machine does not have: it is skipped,
// or fails where QUOTA_TEST_REQUIRE is 1, as it is in `make test`.
func Missing(t testing.TB, what string, err error) {
	t.Helper()
	if os.Getenv("QUOTA_TEST_REQUIRE") == "1" {
		t.Fatalf("%s is required: %v", what, err)
	}
	t.Skipf("no %s on this machine: %v", what, err)
}
