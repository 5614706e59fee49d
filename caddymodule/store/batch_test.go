package store

import "testing"

func TestInserting(t *testing.T) {
	t.Parallel()
	const query = "INSERT INTO t (a, b, c) VALUES ($1, $2, $2)\nON CONFLICT (a) DO UPDATE SET b = excluded.b"
	const want = "INSERT INTO t (a, b, c) VALUES ($1, $2, $2), ($3, $4, $4), ($5, $6, $6)\nON CONFLICT (a) DO UPDATE SET b = excluded.b"
	if got, err := inserting(query, 3, 2); err != nil || got != want {
		t.Errorf("%q, %v\nwant %q", got, err, want)
	}
	if got, err := inserting(query, 1, 2); err != nil || got != query {
		t.Errorf("one row: %q, %v", got, err)
	}
	// What is said of all rows cannot be said of one.
	for _, other := range []string{
		"UPDATE t SET a = $1",
		"INSERT INTO t (a) SELECT a FROM u WHERE b = $1",
		"INSERT INTO t (a) VALUES ($1) ON CONFLICT (a) DO UPDATE SET a = $2",
	} {
		if got, err := inserting(other, 2, 1); err == nil {
			t.Errorf("%s became %s", other, got)
		}
	}
}
