package accounts

import (
	"net/http"
	"strconv"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
)

func TestOpenAPISaysWhoMayAsk(t *testing.T) {
	t.Parallel()
	f := start(t)
	d := f.server.API().OpenAPI()
	if d.OpenAPI[:3] != "3.1" {
		t.Errorf("OpenAPI %s, want 3.1", d.OpenAPI)
	}
	for path, bearer := range map[string]bool{
		"/v1/subscription/me": true, "/v1/subscription/usage": true, "/v1/usage/history": true, "/v1/subscription/plans": false,
	} {
		if got := len(d.Paths[path].Get.Security) == 1; got != bearer {
			t.Errorf("%s demands a token: %v, want %v", path, got, bearer)
		}
	}
}

// Every answer is what the description promises, in each of the states that an
// account can be in.
func TestAnswersMatchTheirSchemas(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(*fixture) error{
		"new user": func(*fixture) error { return nil },
		"every field": func(f *fixture) error {
			f.exec(`INSERT INTO subscriptions (account_id, plan_id, source, status, started_at, current_period_start, current_period_end,
					cancel_at_period_end, cancelled_at, trial_end, past_due_since, pending_plan_id, pending_effective_at)
				SELECT 'ann', id, 'stripe', 'past_due', $1, $1, $2, TRUE, $1, $1, $1, id, $2 FROM subscription_plans WHERE name = 'pro'`,
				"2026-03-10 00:00:00.123456Z", "2026-04-10 00:00:00.000000Z")
			return nil
		},
		"unknown price": func(f *fixture) error {
			f.exec(`INSERT INTO subscriptions (account_id, plan_id, source, status) VALUES ('ann', NULL, 'stripe', 'active')`)
			return nil
		},
		"unlimited": func(f *fixture) error {
			_, err := f.store.Upgrade(f.Context(), ann, store.Grant{Plan: "enterprise"})
			return err
		},
		"bare plan": func(f *fixture) error {
			f.exec(`DELETE FROM plan_quotas`)
			f.exec(`UPDATE subscription_plans SET features = '{}', rate_limits = '{}', rate_limit_multiplier = 0.5`)
			return nil
		},
		"anonymous":    func(f *fixture) error { f.caller.Principal = &quota.Principal{}; return nil },
		"ambiguous":    func(f *fixture) error { f.refusal = quota.Refuse(quota.CodeBadRequest); return nil },
		"suspended":    func(f *fixture) error { f.refusal = quota.Refuse(quota.CodeSuspended); return nil },
		"records down": func(f *fixture) error { f.recordsDown = true; return nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := start(t)
			if err := prepare(f); err != nil {
				t.Fatal(err)
			}
			for path, item := range f.server.API().OpenAPI().Paths {
				f.matches(path, item.Get)
			}
		})
	}
}

// matches fails unless the answer is one that the operation describes.
func (f *fixture) matches(path string, op *huma.Operation) {
	f.Helper()
	w := f.do(http.MethodGet, path)
	response := op.Responses[strconv.Itoa(w.Code)]
	if response == nil {
		f.Errorf("%s: status %d is not described: %s", path, w.Code, w.Body)
		return
	}
	content := response.Content[w.Header().Get("Content-Type")]
	if content == nil {
		f.Errorf("%s: %d as %s is not described", path, w.Code, w.Header().Get("Content-Type"))
		return
	}
	body := decode(f.T, w.Body.Bytes())
	f.valid(path, content.Schema, body)
	if s, ok := body["subscription"].(map[string]any); ok { // Huma's validator takes anything for null
		f.valid(path, &huma.Schema{Ref: "#/components/schemas/Subscription"}, s)
	}
}

func (f *fixture) valid(path string, s *huma.Schema, v any) {
	f.Helper()
	var res huma.ValidateResult
	huma.Validate(f.server.API().OpenAPI().Components.Schemas, s,
		huma.NewPathBuffer([]byte{}, 0), huma.ModeReadFromServer, v, &res)
	for _, err := range res.Errors {
		f.Errorf("%s: %v: %v", path, err, v)
	}
}
