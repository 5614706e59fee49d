package jwtverifier

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/quotagate/quotagate/caddymodule/gate"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

// maxCookies bounds how many cookies of the name one request makes us verify.
const maxCookies = 4

// bearer finds the credential of the scheme in the Authorization header
// (RFC 9110 section 11.4). Schemes are compared without case; another scheme is
// somebody else's. A value that only a backend in use reads as one of the scheme
// (a tab behind it, a space of Latin-1 around it) holds no token: it is found,
// and claimed by nobody.
func (s *settings) bearer(values []string) (token string, found bool) {
	if len(values) == 0 {
		return "", false
	}
	v, n := gate.TrimCookie(values[0]), len(s.scheme)
	if len(v) < n || !strings.EqualFold(v[:n], s.scheme) || len(v) > n && isTokenByte(v[n]) {
		return "", false
	}
	if len(v) != len(values[0]) || len(v) > n && v[n] != ' ' {
		return "", true
	}
	return strings.TrimLeft(v[n:], " "), true
}

// request verifies what the request carries. The Authorization header goes
// before the cookie; both must not name different callers, because nobody knows
// which of them the backend reads.
func (c *core) request(ctx context.Context, header http.Header) (*quota.Principal, error) {
	values := header["Authorization"]
	if len(values) > 1 {
		return nil, &gate.InvalidError{Reason: "more than one Authorization header"}
	}
	token, found := c.bearer(values)
	if !found {
		if c.cookie == "" {
			return nil, gate.ErrNoCredential
		}
		return c.cookies(ctx, header["Cookie"], nil)
	}
	p, err := c.token(ctx, token)
	if err != nil || c.cookie == "" {
		return p, err
	}
	return c.cookies(ctx, header["Cookie"], p)
}

// cookies verifies the cookies of the name, beside what the header gave. A
// worthless one does not matter beside a credential that is valid; any other
// that is refused does, because a backend that reads less strictly could take
// it for another caller's.
func (c *core) cookies(ctx context.Context, lines []string, p *quota.Principal) (*quota.Principal, error) {
	var stale, refused error
	n := 0
	for _, line := range lines {
		for line != "" {
			var token string
			token, line = nextCookie(line, c.cookie)
			if token == "" {
				continue
			}
			if n++; n > maxCookies {
				return nil, &gate.InvalidError{Reason: "too many cookies of one name"}
			}
			q, err := c.token(ctx, token)
			switch {
			case isWorthless(err):
				stale = err
			case err != nil:
				refused = err
			case p == nil:
				p = q
			case p.Subject != q.Subject || p.Org != q.Org:
				return nil, &gate.InvalidError{Reason: "credentials of different callers in one request"}
			}
		}
	}
	switch {
	case refused != nil:
		return nil, refused
	case p != nil:
		return p, nil
	case stale != nil:
		return nil, stale
	}
	return nil, gate.ErrNoCredential
}

func isWorthless(err error) bool {
	if err == nil {
		return false // the usual case, without a search
	}
	_, ok := errors.AsType[*worthless](err)
	return ok
}

// nextCookie takes the next pair off a Cookie header (RFC 6265 section 4.2.1),
// and its value if it has the name; "" otherwise. It is more lenient than
// net/http, which drops a pair that it does not like: the backend may like it.
func nextCookie(line, name string) (value, rest string) {
	pair, rest, _ := strings.Cut(line, ";")
	key, value, ok := strings.Cut(pair, "=")
	if !ok || gate.TrimCookie(key) != name {
		return "", rest
	}
	value = gate.TrimCookie(value)
	if n := len(value); n >= 2 && value[0] == '"' && value[n-1] == '"' {
		value = value[1 : n-1]
	}
	return value, rest
}
