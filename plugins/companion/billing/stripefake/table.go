package stripefake

import (
	"encoding/json"
	"fmt"
)

// keyed is a pointer to a row that knows its id.
type keyed[T any] interface {
	*T
	key() string
}

// table is the rows of one kind in the order in which they were made.
type table[T any, P keyed[T]] struct {
	rows []P
	byID map[string]P
}

func (t *table[T, P]) add(row P) P {
	if t.byID == nil {
		t.byID = map[string]P{}
	}
	t.rows = append(t.rows, row)
	t.byID[row.key()] = row
	return row
}

// get is the row, or nil.
func (t *table[T, P]) get(id string) P { return t.byID[id] }

// drop removes rows that are too old to keep.
func (t *table[T, P]) drop(old func(P) bool) {
	kept := t.rows[:0]
	for _, row := range t.rows {
		if old(row) {
			delete(t.byID, row.key())
			continue
		}
		kept = append(kept, row)
	}
	clear(t.rows[len(kept):])
	t.rows = kept
}

// newest are the rows that match, the newest first, as lists answer them.
func (t *table[T, P]) newest(match func(P) bool) []P {
	var out []P
	for i := len(t.rows) - 1; i >= 0; i-- {
		if match(t.rows[i]) {
			out = append(out, t.rows[i])
		}
	}
	return out
}

// MarshalJSON implements json.Marshaler: a list of the rows.
func (t *table[T, P]) MarshalJSON() ([]byte, error) { return json.Marshal(t.rows) }

// UnmarshalJSON implements json.Unmarshaler.
func (t *table[T, P]) UnmarshalJSON(b []byte) error {
	var rows []P
	if err := json.Unmarshal(b, &rows); err != nil {
		return err
	}
	*t = table[T, P]{}
	for i, row := range rows {
		if row == nil || row.key() == "" {
			return fmt.Errorf("row %d has no id", i)
		}
		t.add(row)
	}
	return nil
}
