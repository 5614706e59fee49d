package stripefake

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Books are kept as long as Stripe keeps them.
const (
	keepEvents  = 30 * day
	keepReplays = day
)

// load reads the books, if there are any.
func (f *Fake) load() error {
	b, err := os.ReadFile(f.options.File)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the billing fake's books: %w", err)
	}
	var s state
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("reading the billing fake's books in %s (remove the file to begin anew): %w", f.options.File, err)
	}
	if s.Test == nil || s.Live == nil || s.Seed == "" {
		return fmt.Errorf("reading the billing fake's books in %s: they are not whole (remove the file to begin anew)", f.options.File)
	}
	s.Live.Livemode = true
	f.state = s
	return nil
}

// save writes the books if something changed: a whole file beside the old one,
// which then takes its place, so that a crash leaves one or the other.
func (f *Fake) save() error {
	for _, m := range f.modes() {
		m.forget(f.unixNow())
	}
	if f.options.File == "" {
		return nil
	}
	b, err := json.Marshal(f.state)
	if err != nil {
		return fmt.Errorf("writing the billing fake's books: %w", err)
	}
	if string(b) == f.saved {
		return nil
	}
	if err := writeFile(f.options.File, b); err != nil {
		return fmt.Errorf("writing the billing fake's books: %w", err)
	}
	f.saved = string(b)
	return nil
}

func writeFile(name string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	t, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	_, err = t.Write(b)
	if err == nil {
		err = t.Sync()
	}
	if err = errors.Join(err, t.Close()); err == nil {
		err = os.Rename(t.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(t.Name()))
	}
	return nil
}

// forget drops what Stripe would not keep either.
func (m *mode) forget(now int64) {
	m.Replays.drop(func(r *replay) bool { return r.Created < now-keepReplays })
	m.Events.drop(func(e *event) bool { return e.Created < now-keepEvents && e.Pending == 0 })
}
