package gate

import (
	"errors"
	"net/http"
	"net/netip"
	"strings"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

// Identity is who sent a request, before any rule was looked at.
type Identity struct {
	// Principal is anonymous where no credential was sent or none is valid.
	Principal *quota.Principal
	// Invalid is set where a credential was sent and refused. Rules say whether
	// the request is then denied or goes on as an anonymous one.
	Invalid *InvalidError
	// IP is the subject of the caller's address; empty for a verified caller, of
	// whom it is seldom asked. Use Gate.Address.
	IP quota.Subject

	address string // as the server gave it
}

var anonymous = &quota.Principal{}

// Identify asks the verifiers in order: the first that claims the credential
// decides. A request whose identity the backend could read differently than the
// gateway is refused with a *quota.Denial.
func (g *Gate) Identify(r *http.Request, clientIP string) (Identity, error) {
	id := Identity{Principal: anonymous, address: clientIP}
	err := g.identify(&id, r)
	if id.Principal.Anonymous() {
		id.IP = g.ipSubject(clientIP)
	}
	return id, err
}

func (g *Gate) identify(id *Identity, r *http.Request) error {
	if err := Ambiguous(r); err != nil {
		return err
	}
	unclaimed := false
	for _, v := range g.verifiers {
		p, err := v.Verify(r.Context(), r)
		switch {
		case err == nil && !names(p):
			id.Invalid = &InvalidError{Reason: "it names nobody"}
			return nil
		case err == nil:
			id.Principal = p
			return nil
		case errors.Is(err, ErrNoCredential):
		case errors.Is(err, ErrUnclaimed):
			unclaimed = true
		default:
			id.Invalid = invalid(err)
			return nil
		}
	}
	if unclaimed {
		id.Invalid = &InvalidError{Reason: "no verifier claims it"}
	}
	return nil
}

// Address is the subject of the caller's address.
func (g *Gate) Address(id *Identity) quota.Subject {
	if id.IP == "" {
		return g.ipSubject(id.address)
	}
	return id.IP
}

// names reports whether the principal names somebody whom the records could
// hold: an id of 1 to 255 bytes, without the zero byte that Postgres refuses.
func names(p *quota.Principal) bool {
	if p == nil || p.Anonymous() {
		return false
	}
	const maxID = 255
	id := p.Subject.ID()
	return id != "" && len(id) <= maxID && strings.IndexByte(id, 0) < 0
}

func invalid(err error) *InvalidError {
	var e *InvalidError
	if errors.As(err, &e) {
		return e
	}
	return &InvalidError{Reason: err.Error()}
}

// Ambiguous refuses what a backend could resolve to another caller or route
// than the gateway did. An error is a *quota.Denial.
func Ambiguous(r *http.Request) error {
	if len(r.Header["Authorization"]) > 1 {
		return badRequest("More than one Authorization header was sent")
	}
	for _, v := range r.Header["Connection"] {
		// What Connection names is dropped on the way: the backend would not see
		// the credential, or the Idempotency-Key, by which was charged.
		for name := range strings.SplitSeq(v, ",") {
			if name = strings.TrimSpace(name); identifies(name) || strings.EqualFold(name, "idempotency-key") {
				return badRequest("The Connection header names a header that decides who is charged")
			}
		}
	}
	for name := range r.Trailer { // those that are announced; see StripTrailers
		if identifies(name) {
			return badRequest("A trailer identifies the caller")
		}
	}
	for i := range len(r.URL.Path) {
		if c := r.URL.Path[i]; c < 0x20 || c == 0x7f {
			return badRequest("The path holds a control character")
		}
	}
	return nil
}

func badRequest(message string) error {
	d := quota.Refuse(quota.CodeBadRequest)
	d.Message = message
	return d
}

// StripTrailers removes what identifies a caller from the trailers of a request
// whose body was read: net/http keeps those that nobody has announced too.
func StripTrailers(trailer http.Header) {
	for name := range trailer {
		if identifies(name) {
			delete(trailer, name)
		}
	}
}

// Equivocal reports whether a backend could read another value of the header
// than the first of that name: it was sent more than once, in a spelling that a
// backend might fold into it too, or Connection has it dropped on the way.
func Equivocal(h http.Header, name string) bool {
	lower, lines := strings.ToLower(strings.ReplaceAll(name, "_", "-")), 0
	for other, values := range h {
		if folds(other, lower) {
			lines += len(values)
		}
	}
	for _, v := range h["Connection"] {
		for dropped := range strings.SplitSeq(v, ",") {
			if folds(strings.TrimSpace(dropped), lower) {
				return true
			}
		}
	}
	return lines > 1
}

// SpeaksHTTP reports whether an Upgrade field offers to go on in a protocol in
// which a client sends requests: behind one that a backend accepts, each of them
// would pass unseen.
func SpeaksHTTP(upgrade []string) bool {
	for _, v := range upgrade {
		for offer := range strings.SplitSeq(v, ",") {
			protocol, _, _ := strings.Cut(strings.TrimSpace(offer), "/")
			switch strings.ToLower(protocol) {
			case "h2c", "h2", "http", "tls", "spdy":
				return true
			}
		}
	}
	return false
}

// identifies reports whether a header of that name can tell a backend who asks.
func identifies(name string) bool {
	return strings.EqualFold(name, "authorization") || strings.EqualFold(name, "cookie") ||
		folds(name, "x-api-key") || folds(name, "x-org-id") || IsIdentityHeader(name)
}

// IsIdentityHeader reports whether name is one of the headers by which a
// gateway tells a backend who asks (X-Quota-*), in any spelling that a backend
// might fold into it: CGI and WSGI read '_' as '-'.
func IsIdentityHeader(name string) bool {
	const prefix = "x-quota-"
	return len(name) >= len(prefix) && folds(name[:len(prefix)], prefix)
}

// folds reports whether a backend may read name as the header lower.
func folds(name, lower string) bool {
	if len(name) != len(lower) {
		return false
	}
	for i := range len(lower) {
		c := name[i]
		switch {
		case c == '_':
			c = '-'
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// namesOrg reports whether the request asks for an organization by X-Org-Id, in
// any spelling that a backend might fold into it.
func namesOrg(h http.Header) bool {
	for _, name := range [...]string{"X-Org-Id", "X_org_id", "X_org-Id", "X-Org_id"} { // as net/http writes them
		for _, v := range h[name] {
			if v != "" {
				return true
			}
		}
	}
	return false
}

// ipSubject groups an address by prefix. IPv4 in IPv6 counts as IPv4; what is no
// address at all (a unix socket) is one caller.
func (g *Gate) ipSubject(client string) quota.Subject {
	addr, err := netip.ParseAddr(client)
	if err != nil {
		if ap, err := netip.ParseAddrPort(client); err == nil {
			addr = ap.Addr()
		}
	}
	if !addr.IsValid() {
		return "ip:unknown"
	}
	addr = addr.Unmap().WithZone("")
	bits := g.prefix4
	if addr.Is6() {
		bits = g.prefix6
	}
	p, err := addr.Prefix(bits)
	if err != nil {
		return "ip:unknown"
	}
	return quota.IPSubject(p)
}
