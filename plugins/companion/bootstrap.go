package companion

import (
	"strings"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

// Which address in a token makes its user an admin, where the config lists it.
const (
	// emailsClaimed are those that the token does not call unverified: for an auth
	// backend that gives nobody a token before it has verified the address.
	emailsClaimed = "claimed"
	// emailsVerified are those that the token says are verified.
	emailsVerified = "verified"
)

// Bootstraps reports whether the config makes the caller a superadmin: by the user
// id, or by an e-mail address that is his as far as the config believes tokens.
func (a *App) Bootstraps(p *quota.Principal) bool {
	email := p.Email
	if p.EmailState == quota.EmailUnverified || p.EmailState != quota.EmailVerified && a.AdminEmails == emailsVerified {
		email = ""
	}
	return a.Lists(p.Subject.ID(), email)
}

// Lists reports whether the user id or the address stands in the config's admins.
func (a *App) Lists(userID, email string) bool {
	for _, admin := range a.Admins {
		if admin == userID || strings.Contains(admin, "@") && sameAddress(admin, email) {
			return true
		}
	}
	return false
}

// sameAddress compares in any case of ASCII letters. Unicode has letters beside
// them that fold to an "s" or a "k", in addresses of somebody else.
func sameAddress(a, b string) bool { return lowerASCII(a) == lowerASCII(b) }

func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, s)
}
