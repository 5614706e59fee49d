package stripefake_test

import (
	"strings"
	"testing"

	"github.com/quotagate/quotagate/plugins/companion/billing/stripefake"
	"github.com/stripe/stripe-go/v86"
)

// What the fake takes is a part of what Stripe takes.
func TestParametersAreStripes(t *testing.T) {
	t.Parallel()
	s := published()
	if s.Info.Version != stripefake.APIVersion || stripe.APIVersion != stripefake.APIVersion {
		t.Fatalf("versions: description %s, client %s, fake %s", s.Info.Version, stripe.APIVersion, stripefake.APIVersion)
	}
	for address, params := range stripefake.Declared() {
		method, path, _ := strings.Cut(address, " ")
		op, err := s.operation(method, path)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, p := range params {
			if !s.accepts(op, p) {
				t.Errorf("%s takes no %s", address, p)
			}
		}
	}
}

func TestUnknownIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, tt := range map[string]struct {
		path, form string
		status     int
		code, want string
	}{
		"parameter":           {"/v1/customers", "emial=x", 400, "parameter_unknown", "emial"},
		"nested parameter":    {"/v1/customers", "invoice_settings[footer]=x", 400, "parameter_unknown", "invoice_settings[footer]"},
		"parameter of a list": {"/v1/subscriptions", "items[0][prise]=x", 400, "parameter_unknown", "items[0][prise]"},
		"value for a hash":    {"/v1/subscriptions", "items=x", 400, "parameter_unknown", "items"},
		"hash for a value":    {"/v1/customers", "email[a]=x", 400, "parameter_unknown", "email[a]"},
		"both":                {"/v1/customers", "metadata[a]=x&metadata[a][b]=y", 400, "", "metadata[a][b]"},
		"broken name":         {"/v1/customers", "metadata[a=x", 400, "", "metadata[a"},
		"broken encoding":     {"/v1/customers", "email=%zz", 400, "", "email"},
		"integer":             {"/v1/refunds", "amount=1.5&charge=ch_x", 400, "parameter_invalid_integer", "amount"},
		"boolean":             {"/v1/products", "name=x&active=maybe", 400, "", "active"},
		"word":                {"/v1/refunds", "charge=ch_x&reason=whim", 400, "", "reason"},
		"missing":             {"/v1/products", "", 400, "parameter_missing", "name"},
		"missing object":      {"/v1/refunds", "charge=ch_x", 400, "resource_missing", "charge"},
		"object in the path":  {"/v1/customers/cus_x", "", 404, "resource_missing", "id"},
		"expansion":           {"/v1/customers", "expand[]=emails", 400, "", "expand[]"},
		"deep expansion":      {"/v1/customers", "expand[]=a.b.c.d.e.f", 400, "", "expand"},
		"address":             {"/v1/coupons", "", 404, "", ""},
		"mode of a session":   {"/v1/checkout/sessions", "mode=payment&success_url=x", 400, "", "mode"},
	} {
		t.Run(name, func(t *testing.T) {
			res, o := w.post(tt.path, tt.form)
			e, _ := o["error"].(map[string]any)
			code, _ := e["code"].(string)
			param, _ := e["param"].(string)
			if res.StatusCode != tt.status || e["type"] != "invalid_request_error" || code != tt.code || param != tt.want {
				t.Errorf("%d %v", res.StatusCode, o)
			}
			if res.Header.Get("Request-Id") == "" || e["message"] == "" {
				t.Errorf("headers %v, message %q", res.Header, e["message"])
			}
		})
	}
}

func TestKeysAndModes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, tt := range map[string]struct {
		header []string
		status int
	}{
		"none":          {[]string{"Authorization", ""}, 401},
		"another":       {[]string{"Authorization", "Bearer sk_test_anotherkey1234567890"}, 401},
		"short":         {[]string{"Authorization", "Bearer x"}, 401},
		"other version": {[]string{"Stripe-Version", "2020-08-27"}, 400},
		"other account": {[]string{"Stripe-Account", "acct_1"}, 400},
		"other body":    {[]string{"Content-Type", "application/json"}, 400},
	} {
		res, o := w.post("/v1/customers", "email=x", tt.header...)
		if res.StatusCode != tt.status {
			t.Errorf("%s: %d %v", name, res.StatusCode, o)
		}
		if text := strings.Join(tt.header, ""); strings.Contains(text, "anotherkey") && strings.Contains(o["error"].(map[string]any)["message"].(string), "anotherkey") {
			t.Errorf("the message shows the key: %v", o)
		}
	}

	live := w.clientFor("sk_live_stripefake", 0)
	c := must(live.V1Customers.Create(t.Context(), nil))(t)
	if !c.Livemode {
		t.Error("made with the live key, and not in live mode")
	}
	_, err := w.client.V1Customers.Retrieve(t.Context(), c.ID, nil)
	if e := refused(t, err, 404, stripe.ErrorTypeInvalidRequest, stripe.ErrorCodeResourceMissing); !strings.Contains(e.Msg, "a similar object exists in live mode") {
		t.Errorf("message %q", e.Msg)
	}
	for _, m := range w.fake.Take() {
		if m.Type == "customer.created" {
			t.Error("the receiver of test mode was told of live mode")
		}
	}
}

func TestIDsFollowFromTheSeed(t *testing.T) {
	t.Parallel()
	run := func(seed string) string {
		w := newWorld(t, func(o *stripefake.Options) { o.Seed = seed })
		c := w.customer("pm_card_visa")
		return c.ID + w.subscribe(c.ID, "pro_monthly").ID
	}
	if a, b := run("one"), run("one"); a != b {
		t.Errorf("%s, then %s", a, b)
	}
	if a, b := run("one"), run("two"); a == b {
		t.Errorf("two seeds: %s", a)
	}
	if a, b := run(""), run(""); a == b {
		t.Errorf("no seed: %s twice", a)
	}
}
