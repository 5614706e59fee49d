package caddymodule

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// maxExplainBody bounds the body of POST /quota/explain, in bytes.
const maxExplainBody = 1 << 20

// ExplainRequest is the body of POST /quota/explain: a request as a client would send it.
type ExplainRequest struct {
	// Method is GET by default.
	Method string `json:"method,omitempty"`
	// URL is absolute, or a path: then every server is asked, by localhost and by
	// the hosts of its sites.
	URL string `json:"url"`
	// Headers are the fields of the request; Content-Length stands for a body of that length.
	Headers map[string]HeaderValues `json:"headers,omitempty"`
	// RemoteIP is the address that it comes from. Default: 127.0.0.1.
	RemoteIP string `json:"remote_ip,omitempty"`
	// Listen selects a server, by its name or an address that it listens on.
	// Default: those that listen on the URL's port, else all in the order of their
	// names, until a `quota` handler judges.
	Listen string `json:"listen,omitempty"`
}

// HeaderValues are the values of one field: a text, or a list of texts.
type HeaderValues []string

// UnmarshalJSON takes a text or a list.
func (v *HeaderValues) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		var one string
		if err := json.Unmarshal(b, &one); err != nil {
			return fmt.Errorf("decoding a header: %w", err)
		}
		*v = HeaderValues{one}
		return nil
	}
	if err := json.Unmarshal(b, (*[]string)(v)); err != nil {
		return fmt.Errorf("decoding a header: %w", err)
	}
	return nil
}

func serveExplain(app *App, w http.ResponseWriter, r *http.Request) error {
	bad := func(err error) error {
		return caddy.APIError{HTTPStatus: http.StatusBadRequest, Err: err}
	}
	var ask ExplainRequest
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxExplainBody))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&ask); err != nil {
		return bad(fmt.Errorf("decoding the request to explain: %w", err))
	}
	v, err := caddy.ActiveContext().AppIfConfigured("http")
	if err != nil {
		return bad(errors.New("the running config has no HTTP server"))
	}
	httpApp, ok := v.(*caddyhttp.App)
	if !ok {
		return fmt.Errorf("finding the app http: it is a %T", v)
	}
	u, err := ask.parseURL()
	if err != nil {
		return bad(err)
	}
	servers, err := candidates(httpApp.Servers, ask.Listen, u)
	if err != nil {
		return bad(err)
	}
	app.runtime.explaining.Add(1)
	defer app.runtime.explaining.Add(-1)
	for _, s := range servers {
		for _, host := range hostsOf(s, u) {
			// Each handler gets a request of its own: it may write to it.
			e := &explanation{}
			synthetic, err := ask.request(r.Context(), e, u, host)
			if err != nil {
				return bad(err)
			}
			s.ServeHTTP(&nowhere{header: http.Header{}}, synthetic)
			if e.answer != nil {
				return writeAdmin(w, e.answer)
			}
		}
	}
	return writeAdmin(w, &Explained{Notes: []string{"no quota handler sees this request: it passes, or another handler answers it"}})
}

// parseURL reads an absolute URL, or a path.
func (q *ExplainRequest) parseURL() (*url.URL, error) {
	u, err := url.Parse(q.URL)
	if err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	absolute := (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
	path := u.Scheme == "" && u.Host == "" && strings.HasPrefix(q.URL, "/")
	if !absolute && !path {
		return nil, fmt.Errorf("url: %q is neither an http or https URL nor a path beginning with /", q.URL)
	}
	return u, nil
}

// candidates are the servers to ask, in order.
func candidates(servers map[string]*caddyhttp.Server, listen string, u *url.URL) ([]*caddyhttp.Server, error) {
	names := sortedNames(servers)
	pick := func(wanted func(name string) bool) []*caddyhttp.Server {
		var picked []*caddyhttp.Server
		for _, name := range names {
			if wanted(name) {
				picked = append(picked, servers[name])
			}
		}
		return picked
	}
	if listen != "" {
		picked := pick(func(name string) bool {
			return name == listen || slices.Contains(servers[name].Listen, listen) || listensOn(servers[name], portOf(listen))
		})
		if len(picked) == 0 {
			return nil, fmt.Errorf("listen: no server of the running config is called %q or listens there: it has %s", listen, list(names))
		}
		return picked, nil
	}
	if picked := pick(func(name string) bool { return listensOn(servers[name], urlPort(u)) }); len(picked) > 0 {
		return picked, nil
	}
	return pick(func(string) bool { return true }), nil
}

// hostsOf are the hosts to ask a server by: the URL's, or for a path localhost
// and the hosts of the server's sites.
func hostsOf(s *caddyhttp.Server, u *url.URL) []string {
	if u.Host != "" {
		return []string{u.Host}
	}
	hosts := []string{"localhost"}
	for i := range s.Routes {
		for _, set := range s.Routes[i].MatcherSets {
			for _, m := range set {
				matcher, ok := m.(*caddyhttp.MatchHost)
				if !ok {
					continue
				}
				for _, host := range *matcher {
					if !strings.ContainsAny(host, "*{") && !slices.Contains(hosts, host) {
						hosts = append(hosts, host)
					}
				}
			}
		}
	}
	return hosts
}

func urlPort(u *url.URL) uint {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return 0
	}
	return uint(n)
}

// portOf is the port of an address such as :8080 or localhost:8080, 0 if there is none.
func portOf(address string) uint {
	a, err := caddy.ParseNetworkAddress(address)
	if err != nil {
		return 0
	}
	return a.StartPort
}

func listensOn(s *caddyhttp.Server, port uint) bool {
	return port != 0 && slices.ContainsFunc(s.Listen, func(listen string) bool {
		a, err := caddy.ParseNetworkAddress(listen)
		return err == nil && !a.IsUnixNetwork() && a.StartPort <= port && port <= a.EndPort
	})
}

// request is the request as a server would read it from a connection. Its
// context is cancelled: transports send nothing on one that is, so that a route
// that passes no `quota` handler reaches no backend.
func (q *ExplainRequest) request(ctx context.Context, e *explanation, u *url.URL, host string) (*http.Request, error) {
	ctx, cancel := context.WithCancel(context.WithValue(ctx, explainKey{}, e))
	cancel()
	method := q.Method
	if method == "" {
		method = http.MethodGet
	}
	r, err := http.NewRequestWithContext(ctx, method, "/", http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("method: %w", err)
	}
	target := *u
	target.Scheme, target.Host, target.User = "", "", nil
	r.RequestURI = target.RequestURI()
	if r.URL, err = url.ParseRequestURI(r.RequestURI); err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	r.Host = host
	if u.Scheme == "https" {
		// As behind a handshake: matchers and placeholders look at it.
		r.TLS = &tls.ConnectionState{Version: tls.VersionTLS13, HandshakeComplete: true, ServerName: u.Hostname()}
	}
	ip := q.RemoteIP
	if ip == "" {
		ip = "127.0.0.1"
	}
	if _, err := netip.ParseAddr(ip); err != nil {
		return nil, fmt.Errorf("remote_ip: %q is not an IP address", ip)
	}
	r.RemoteAddr = net.JoinHostPort(ip, "1")
	return r, q.setHeaders(r)
}

// setHeaders puts the fields where net/http would.
func (q *ExplainRequest) setHeaders(r *http.Request) error {
	for _, name := range sortedNames(q.Headers) {
		values := q.Headers[name]
		if strings.EqualFold(name, "host") {
			if len(values) != 1 {
				return errors.New("headers: Host has more than one value")
			}
			r.Host = values[0]
			continue
		}
		if err := checkHeader(name); err != nil {
			return fmt.Errorf("headers: %w", err)
		}
		for _, value := range values {
			if hasControl(value) {
				return fmt.Errorf("headers: the value of %s holds a control character", name)
			}
			key := textproto.CanonicalMIMEHeaderKey(name)
			r.Header[key] = append(r.Header[key], value)
		}
	}
	if length := r.Header.Get("Content-Length"); length != "" {
		n, ok := amount(length)
		if !ok {
			return fmt.Errorf("headers: Content-Length %q is not a whole number in 0..2^53", length)
		}
		r.ContentLength = n
	}
	return nil
}

// nowhere is the ResponseWriter of a request that nobody waits for.
type nowhere struct{ header http.Header }

func (n *nowhere) Header() http.Header                { return n.header }
func (n *nowhere) Write(p []byte) (int, error)        { return len(p), nil }
func (n *nowhere) WriteHeader(int)                    {}
func (n *nowhere) FlushError() error                  { return nil }
func (n *nowhere) EnableFullDuplex() error            { return nil }
func (n *nowhere) SetReadDeadline(_ time.Time) error  { return nil }
func (n *nowhere) SetWriteDeadline(_ time.Time) error { return nil }
