package companion

import (
	"testing"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

// An address makes an admin only if somebody has made sure of it, and it is the
// one that is listed, not one that looks like it.
func TestBootstraps(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		id, email               string
		verified, unless, lists bool // verified: with email_verified; unless: without, where claimed ones count
	}{
		{"42", "", true, true, true}, {"4", "", false, false, false},
		{"7", "ops@EXAMPLE.com", true, true, true}, {"7", "", false, false, false}, {"7", "42", false, false, false},
		{"Ops@example.com", "", true, true, true}, {"ops@example.com", "", false, false, false}, {"", "", false, false, false},
		{"7", "op\u017f@example.com", false, false, false}, {"7", "ops@example.com ", false, false, false},
		{"7", "\u212aim@example.com", false, false, false}, {"7", "KIM@example.com", true, true, true},
	} {
		a := &App{Admins: []string{"42", "Ops@example.com", "kim@example.com"}}
		p := &quota.Principal{Subject: quota.UserSubject(c.id), Email: c.email}
		byID := c.email == "" && c.verified
		if got := a.Bootstraps(p); got != byID {
			t.Errorf("%q, %q that nobody has verified: %v, want %v", c.id, c.email, got, byID)
		}
		if got := a.Lists(c.id, c.email); got != c.lists {
			t.Errorf("%q, %q: listed %v, want %v", c.id, c.email, got, c.lists)
		}
		a.AdminEmails = emailsClaimed
		if got := a.Bootstraps(p); got != c.unless {
			t.Errorf("%q, %q as it is claimed: %v, want %v", c.id, c.email, got, c.unless)
		}
		a.AdminEmails, p.EmailVerified = emailsVerified, true
		if got := a.Bootstraps(p); got != c.verified {
			t.Errorf("%q, %q verified: %v, want %v", c.id, c.email, got, c.verified)
		}
	}
}
