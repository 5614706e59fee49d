package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/google/uuid"
)

// welcome prints what runs where, a token for each demo user, and what to try.
func welcome(ctx context.Context, w io.Writer, s settings, auth *authBackend, users []demoUser) error {
	gateway := "http://localhost:" + s.http
	var b strings.Builder
	fmt.Fprintf(&b, `Quotagate is running. Ctrl-C stops it.

  gateway            %s
  metrics, health    http://localhost:%s/metrics  /livez  /readyz
  admin API          http://%s/quota/status
  auth backend       http://%s (stand-in; users, passwords %q)
  dashboard backend  http://%s (stand-in)
  state and log      %s, %s/caddy.log

Demo users, with tokens good for %d hours (copy the lines into another shell):

`, gateway, s.metrics, s.admin, s.auth, demoPassword, s.dashboard, s.data, s.data, int(demoTTL.Hours()))
	var buyer string // the token of a user without a subscription
	for _, u := range users {
		token, err := auth.sign(u.id, u.email(), uuid.NewString(), "access", demoTTL)
		if err != nil {
			return err
		}
		plan := u.plan
		if plan == "" {
			plan = "free"
		}
		name := strings.ToUpper(plan)
		if u.id == adminID {
			name = "ADMIN"
		} else if u.plan == "" {
			buyer = token
		}
		fmt.Fprintf(&b, "# %s, plan %s\n%s=%s\n", u.email(), plan, name, token)
	}
	fmt.Fprintf(&b, `
Worth trying:

# a request with its limits in the headers: 60 a minute on free, 300 on pro
curl -i -H "Authorization: Bearer $FREE" %[1]s/items
# ten jobs a month on free: the eleventh is refused with 402
for i in $(seq 11); do curl -s -o /dev/null -w '%%{http_code}\n' -X POST -H "Authorization: Bearer $FREE" %[1]s/jobs; done
# what the user has and what is used of it
curl -s -H "Authorization: Bearer $PRO" %[1]s/v1/subscription/usage
# who has asked, as a superadmin sees it
curl -s -H "Authorization: Bearer $ADMIN" %[1]s/v1/admin/users
`, gateway)
	purchase, err := offerPro(ctx, gateway, buyer)
	if err != nil {
		return fmt.Errorf("opening a page to buy Pro on: %w", err)
	}
	b.WriteString(purchase + "\n")
	_, err = io.WriteString(w, b.String())
	return err
}
