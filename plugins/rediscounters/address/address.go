// Package address reads the URLs that say where a Redis is and who asks, and
// makes clients of them. The counters and whatever else is kept in a Redis are
// found by it; what is asked there is left to others.
package address

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Redis is where a Redis is and who asks.
type Redis struct {
	Kind Kind
	// Hosts are host:port, or the path of a socket; those of the Sentinels.
	Hosts []string
	// Master is the name by which Sentinels know it.
	Master string
	DB     int

	Username, Password                 string
	SentinelUsername, SentinelPassword string

	// TLS is nil for plain connections.
	TLS *TLS
}

// Kind says how the servers stand.
type Kind string

// The kinds of addresses, as their URLs begin.
const (
	KindSingle   Kind = "redis"
	KindTLS      Kind = "rediss"
	KindSocket   Kind = "unix"
	KindSentinel Kind = "redis+sentinel"
	KindCluster  Kind = "redis+cluster"
)

// TLS says whom to trust; the zero value: the system's roots, for the host's own name.
type TLS struct {
	CA         string // a PEM file
	Cert, Key  string // PEM files, for servers that want to know their clients
	ServerName string
}

const (
	defaultPort         = "6379"
	defaultSentinelPort = "26379"
)

// errURL says what a URL looks like. Errors never quote a URL: it may hold a password.
var errURL = errors.New("want redis://host:port/db, rediss://host:port/db, unix:///path, " +
	"redis+sentinel://host:port,host:port/master or redis+cluster://host:port,host:port")

var errUnencoded = errors.New("the user or password of a Redis URL is not percent-encoded: write / as %2F, ? as %3F, @ as %40, : as %3A")

// Parse reads one or more URLs: more than one for Sentinels or Cluster
// nodes, which then say the same but for their hosts.
func Parse(urls ...string) (Redis, error) {
	if len(urls) == 0 {
		return Redis{}, fmt.Errorf("no URL: %w", errURL)
	}
	var a Redis
	for i, text := range urls {
		next, err := parseURL(text)
		if err != nil {
			return Redis{}, err
		}
		if i == 0 {
			a = next
			continue
		}
		if a.Kind != KindSentinel && a.Kind != KindCluster {
			return Redis{}, fmt.Errorf("%s:// is one server: several URLs are for redis+sentinel:// and redis+cluster://", a.Kind)
		}
		hosts := next.Hosts
		next.Hosts = a.Hosts
		if !a.same(&next) {
			return Redis{}, errors.New("the URLs differ in more than their hosts")
		}
		a.Hosts = append(a.Hosts, hosts...)
	}
	return a, nil
}

func (a *Redis) same(b *Redis) bool {
	x, y := *a, *b
	if (x.TLS == nil) != (y.TLS == nil) || (x.TLS != nil && *x.TLS != *y.TLS) {
		return false
	}
	return x.Kind == y.Kind && x.Master == y.Master && x.DB == y.DB && x.Username == y.Username && x.Password == y.Password &&
		x.SentinelUsername == y.SentinelUsername && x.SentinelPassword == y.SentinelPassword
}

func parseURL(text string) (Redis, error) {
	scheme, rest, ok := strings.Cut(text, "://")
	a := Redis{Kind: Kind(scheme)}
	if !ok || !slices.Contains([]Kind{KindSingle, KindTLS, KindSocket, KindSentinel, KindCluster}, a.Kind) {
		return a, fmt.Errorf("not a Redis URL: %w", errURL)
	}
	rest, query, _ := strings.Cut(rest, "?")
	authority, path := rest, ""
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		authority, path = rest[:i], rest[i+1:]
	}
	if a.Kind != KindSocket && strings.ContainsRune(path+query, '@') {
		return a, errUnencoded // and what is quoted below is no part of a password
	}
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		name, password, _ := strings.Cut(authority[:i], ":")
		var failed error
		if a.Username, failed = url.PathUnescape(name); failed == nil {
			a.Password, failed = url.PathUnescape(password)
		}
		if failed != nil {
			return a, errUnencoded
		}
		authority = authority[i+1:]
	}
	if a.Kind == KindTLS {
		a.TLS = new(TLS)
	}
	if err := a.place(authority, path); err != nil {
		return a, err
	}
	return a, a.options(query)
}

// place reads the hosts and the path.
func (a *Redis) place(authority, path string) error {
	if a.Kind == KindSocket {
		if authority != "" || path == "" {
			return fmt.Errorf("a socket's URL has no host and a whole path: %w", errURL)
		}
		a.Hosts = []string{"/" + path}
		return nil
	}
	port := defaultPort
	if a.Kind == KindSentinel {
		port = defaultSentinelPort
	}
	for host := range strings.SplitSeq(authority, ",") {
		if host == "" {
			return fmt.Errorf("a Redis URL lacks a host: %w", errURL)
		}
		name, number, err := net.SplitHostPort(host)
		if err != nil {
			name, number = strings.Trim(host, "[]"), port
		}
		if n, err := strconv.Atoi(number); err != nil || n < 1 || n > 65535 || name == "" || strings.ContainsAny(name, " \t\r\n") {
			return fmt.Errorf("%q is not host:port: %w", host, errURL)
		}
		a.Hosts = append(a.Hosts, net.JoinHostPort(name, number))
	}
	if len(a.Hosts) > 1 && a.Kind != KindSentinel && a.Kind != KindCluster {
		return fmt.Errorf("%s:// is one server: several hosts are for redis+sentinel:// and redis+cluster://", a.Kind)
	}
	switch {
	case a.Kind == KindSentinel:
		if a.Master = path; path == "" || strings.Contains(path, "/") {
			return errors.New("a Sentinel's URL ends with the name of the master: redis+sentinel://host:port/mymaster")
		}
	case path == "":
	case a.Kind == KindCluster:
		return errors.New("a Cluster has no databases: leave out the path")
	default:
		return a.setDB(path)
	}
	return nil
}

func (a *Redis) setDB(text string) (err error) {
	if a.DB, err = strconv.Atoi(text); err != nil || a.DB < 0 {
		return fmt.Errorf("%q is not the number of a database", text)
	}
	return nil
}

// options reads what stands behind the question mark.
func (a *Redis) options(query string) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return errors.New("the options of a Redis URL are not percent-encoded")
	}
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	slices.Sort(names)
	if i := slices.Index(names, "tls"); i >= 0 { // before the options that need it
		names[0], names[i] = names[i], names[0]
	}
	for _, name := range names {
		if len(values[name]) > 1 {
			return fmt.Errorf("option %s stands twice in a Redis URL", name)
		}
		if err := a.option(name, values[name][0]); err != nil {
			return err
		}
	}
	return nil
}

func (a *Redis) option(name, value string) error {
	many := a.Kind == KindSentinel || a.Kind == KindCluster
	switch {
	case name == "db" && a.Kind != KindCluster:
		return a.setDB(value)
	case name == "tls" && many && (value == "true" || value == "false"):
		if value == "true" {
			a.TLS = new(TLS)
		}
		return nil
	case name == "tls" && many:
		return errors.New("option tls of a Redis URL: want true or false")
	case name == "sentinel_username" && a.Kind == KindSentinel:
		a.SentinelUsername = value
	case name == "sentinel_password" && a.Kind == KindSentinel:
		a.SentinelPassword = value
	case name == "ca" && a.TLS != nil:
		a.TLS.CA = value
	case name == "cert" && a.TLS != nil:
		a.TLS.Cert = value
	case name == "key" && a.TLS != nil:
		a.TLS.Key = value
	case name == "server_name" && a.TLS != nil:
		a.TLS.ServerName = value
	default:
		return fmt.Errorf("unknown option %q in a %s URL: want %s", name, a.Kind, a.known())
	}
	return nil
}

func (a *Redis) known() string {
	var names []string
	if a.Kind != KindCluster {
		names = append(names, "db")
	}
	if a.Kind == KindSentinel {
		names = append(names, "sentinel_username", "sentinel_password")
	}
	if a.Kind == KindSentinel || a.Kind == KindCluster {
		names = append(names, "tls=true")
	}
	if a.TLS != nil {
		names = append(names, "ca", "cert", "key", "server_name")
	}
	return strings.Join(names, ", ")
}

// Identity names the servers and who asks, without any secret.
func (a *Redis) Identity() string {
	hosts := slices.Clone(a.Hosts)
	slices.Sort(hosts)
	id := fmt.Sprintf("%s|%s|%s|%d|%q|%q", a.Kind, strings.Join(hosts, ","), a.Master, a.DB, a.Username, a.SentinelUsername)
	if a.TLS != nil {
		id += fmt.Sprintf("|%+v", *a.TLS)
	}
	return id
}

// config reads the files that the TLS options name.
func (t *TLS) config() (*tls.Config, error) {
	if t == nil {
		return nil, nil // no TLS
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, fmt.Errorf("reading the option ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("reading the option ca: %s holds no certificate", t.CA)
		}
	}
	if t.Cert != "" || t.Key != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, fmt.Errorf("reading the options cert and key: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
