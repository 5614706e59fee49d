package store

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// cursor is where a page ends.
type cursor struct {
	Sort string  `json:"s"`
	ID   string  `json:"i"`
	At   *string `json:"v"` // the value that is sorted by
}

// text is the cursor as a client is given it.
func (c cursor) text() (string, error) {
	raw, err := json.Marshal(c)
	if err != nil {
		return "", fmt.Errorf("making a cursor: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(raw), nil
}

func readCursor(text string, o userOrder) (cursor, error) {
	var c cursor
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return c, errCursor()
	}
	if err := json.Unmarshal(raw, &c); err != nil || c.Sort != o.String() || c.ID == "" ||
		!isText(c.ID) || c.At != nil && !isText(*c.At) {
		return c, errCursor()
	}
	return c, nil
}

func errCursor() error {
	return invalid("cursor", "is not one that this list has given: begin anew without it")
}

// cursorFault is an error of a page. A cursor whose value is none of its column's
// was made up: what else is compared was looked at before.
func (q *directoryQuery) cursorFault(err error) error {
	var state interface{ SQLState() string }
	if q.continued && errors.As(err, &state) && strings.HasPrefix(state.SQLState(), "22") {
		return errCursor()
	}
	return err
}
