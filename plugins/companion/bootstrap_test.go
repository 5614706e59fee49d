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
		id, email string
		lists     bool
	}{
		{"42", "", true},
		{"4", "", false},
		{"7", "ops@EXAMPLE.com", true},
		{"7", "", false},
		{"7", "42", false},
		{"Ops@example.com", "", true},
		{"ops@example.com", "", false},
		{"", "", false},
		{"7", "op\u017f@example.com", false},
		{"7", "ops@example.com ", false},
		{"7", "\u212aim@example.com", false},
		{"7", "KIM@example.com", true},
	} {
		a := &App{Admins: []string{"42", "Ops@example.com", "kim@example.com"}}
		if got := a.Lists(c.id, c.email); got != c.lists {
			t.Errorf("%q, %q: listed %v, want %v", c.id, c.email, got, c.lists)
		}
		byID := c.lists && c.email == ""
		for _, b := range []struct {
			emails string
			state  quota.EmailState
			want   bool
		}{
			{"", quota.EmailClaimed, c.lists},
			{"", quota.EmailVerified, c.lists},
			{"", quota.EmailUnverified, byID},
			{emailsClaimed, quota.EmailClaimed, c.lists},
			{emailsClaimed, quota.EmailUnverified, byID},
			{emailsVerified, quota.EmailClaimed, byID},
			{emailsVerified, quota.EmailVerified, c.lists},
			{emailsVerified, quota.EmailUnverified, byID},
		} {
			a.AdminEmails = b.emails
			p := &quota.Principal{Subject: quota.UserSubject(c.id), Email: c.email, EmailState: b.state}
			if got := a.Bootstraps(p); got != b.want {
				t.Errorf("%q, %q in state %d, admin_emails %q: %v, want %v", c.id, c.email, b.state, b.emails, got, b.want)
			}
		}
	}
}
