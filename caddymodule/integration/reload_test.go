package integration

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"syscall"
)

// reload loads the config anew, as `caddy reload --force` does. Each load replaces
// the admin endpoint: a connection that meets the old one's end is made again.
func (g *gateway) reload() error {
	b, err := os.ReadFile(g.file)
	if err != nil {
		return err
	}
	for attempt := 0; ; attempt++ {
		err := g.load(b)
		if err == nil || attempt == 3 || !met(err) {
			return err
		}
	}
}

func (g *gateway) load(caddyfile []byte) error {
	req, err := http.NewRequest(http.MethodPost, "http://"+g.admin+"/load", bytes.NewReader(caddyfile))
	if err != nil {
		return err
	}
	req.Close = true
	req.Header.Set("Content-Type", "text/caddyfile")
	req.Header.Set("Cache-Control", "must-revalidate")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("reloading: %d %s", res.StatusCode, body)
	}
	return err
}

// met reports that a connection has met the end of a listener.
func met(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) }
