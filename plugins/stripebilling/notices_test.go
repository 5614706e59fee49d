package stripebilling

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/plugins/companion/billing"
	"github.com/stripe/stripe-go/v86"
)

const (
	secretA = "whsec_aaaaaaaaaaaa"
	secretB = "whsec_bbbbbbbbbbbb"
)

func sign(body string, at time.Time, secret string) string {
	return fmt.Sprintf("t=%d,v1=%s", at.Unix(), hex.EncodeToString(stripe.ComputeSignature(at, []byte(body), secret)))
}

func eventBody(object string, livemode bool) string {
	return fmt.Sprintf(`{"id":"evt_1","object":"event","type":"customer.subscription.updated","created":1790000000,"livemode":%v,`+
		`"api_version":"2020-01-01","data":{"object":%s}}`, livemode, object)
}

func TestWebhookSignatures(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_790_000_100, 0)
	c := newClient("sk_test_1", "", []string{secretA, secretB})
	body := eventBody(`{"id":"sub_1","object":"subscription","customer":"cus_1"}`, false)
	good := sign(body, now, secretA)
	for name, tc := range map[string]struct {
		body, header string
		want         error
	}{
		"good":                      {body, good, nil},
		"the other secret":          {body, sign(body, now, secretB), nil},
		"two signatures":            {body, good + ",v1=" + strings.Repeat("00", 32), nil},
		"another scheme beside":     {body, good + ",v0=00", nil},
		"just in time":              {body, sign(body, now.Add(-5*time.Minute), secretA), nil},
		"too old":                   {body, sign(body, now.Add(-5*time.Minute-time.Second), secretA), billing.ErrBadSignature},
		"from the future":           {body, sign(body, now.Add(5*time.Minute+time.Second), secretA), billing.ErrBadSignature},
		"from the far future":       {body, sign(body, now.AddDate(100, 0, 0), secretA), billing.ErrBadSignature},
		"a foreign secret":          {body, sign(body, now, "whsec_cccccccccccc"), billing.ErrBadSignature},
		"truncated":                 {body[:len(body)-1], good, billing.ErrBadSignature},
		"changed":                   {strings.Replace(body, "cus_1", "cus_2", 1), good, billing.ErrBadSignature},
		"another time":              {body, strings.Replace(good, "t=1790000100", "t=1790000101", 1), billing.ErrBadSignature},
		"two times":                 {body, "t=1790000100," + good, billing.ErrBadSignature},
		"no time":                   {body, good[strings.LastIndexByte(good, ',')+1:], billing.ErrBadSignature},
		"no signature":              {body, "t=1790000100", billing.ErrBadSignature},
		"only the old scheme":       {body, strings.Replace(good, "v1=", "v0=", 1), billing.ErrBadSignature},
		"nothing":                   {body, "", billing.ErrBadSignature},
		"nonsense":                  {body, "a=b=c,t=x", billing.ErrBadSignature},
		"a time before time":        {body, sign(body, time.Unix(-5, 0), secretA), billing.ErrBadSignature},
		"a time beyond all numbers": {body, "t=99999999999999999999,v1=00", billing.ErrBadSignature},
		"an empty body":             {"", sign("", now, secretA), billing.ErrBadEvent},
		"no JSON":                   {"{", sign("{", now, secretA), billing.ErrBadEvent},
		"no event":                  {`{"object":"charge"}`, sign(`{"object":"charge"}`, now, secretA), billing.ErrBadEvent},
		"an event of nothing":       {`{"object":"event"}`, sign(`{"object":"event"}`, now, secretA), billing.ErrBadEvent},
		"the live mode":             {eventBody(`{}`, true), sign(eventBody(`{}`, true), now, secretA), billing.ErrWrongMode},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, err := c.ReadEvent([]byte(tc.body), tc.header, now)
			if !errors.Is(err, tc.want) {
				t.Fatalf("%v, want %v", err, tc.want)
			}
			if tc.want != nil {
				if e.ID != "" {
					t.Errorf("refused, and read: %+v", e)
				}
				if strings.Contains(err.Error(), secretA) || strings.Contains(err.Error(), secretB) {
					t.Errorf("the error says a secret: %v", err)
				}
				return
			}
			want := billing.Event{
				ID: "evt_1", Type: "customer.subscription.updated", Created: time.Unix(1790000000, 0).UTC(), Customer: "cus_1", Subscribed: true,
			}
			if diff := cmp.Diff(want, e); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	live := newClient("sk_live_1", "", []string{secretA})
	if _, err := live.ReadEvent([]byte(body), good, now); !errors.Is(err, billing.ErrWrongMode) {
		t.Errorf("a test event at a live key: %v", err)
	}
}

// What an endpoint is expected to be sent is what operators are told to ask for.
func TestSubscribedEvents(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/reference/billing-stripe.md")
	if err != nil {
		t.Fatal(err)
	}
	if asked := "Events: `" + strings.Join(families(), "`, `") + "`."; !strings.Contains(string(page), asked) {
		t.Errorf("the page of the option does not say %q", asked)
	}
	for kind, want := range map[string]bool{
		"customer.subscription.trial_will_end": true, "invoice.paid": true, "checkout.session.expired": true, "charge.dispute.created": true,
		"customer.deleted": true, "customer.created": false, "invoice_payment.paid": false, "charge.succeeded": false, "payment_intent.succeeded": false,
	} {
		if got := subscribed(kind); got != want {
			t.Errorf("%s: %v", kind, got)
		}
	}
}

func TestWhomAnEventConcerns(t *testing.T) {
	t.Parallel()
	for object, want := range map[string]string{
		`{"id":"sub_1","object":"subscription","customer":"cus_1"}`:               "cus_1",
		`{"id":"sub_1","object":"subscription","customer":{"id":"cus_2"}}`:        "cus_2",
		`{"id":"cus_3","object":"customer"}`:                                      "cus_3",
		`{"id":"cus_4","object":"customer","deleted":true}`:                       "cus_4",
		`{"id":"dp_1","object":"dispute","charge":"ch_1"}`:                        "",
		`{"id":"cs_1","object":"checkout.session","customer":null}`:               "",
		`{"id":"price_1","object":"price","metadata":{"customer":"cus_of_text"}}`: "",
	} {
		if got, err := customerOf([]byte(object)); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", object, got, err, want)
		}
	}
	for _, object := range []string{`[]`, `{"customer":7}`, `{"customer":[]}`} {
		if _, err := customerOf([]byte(object)); err == nil {
			t.Errorf("%s was read", object)
		}
	}
}

// Whatever comes: nothing that our secret did not sign is read.
func FuzzReadEvent(f *testing.F) {
	now := time.Unix(1_790_000_100, 0)
	body := eventBody(`{"id":"sub_1","object":"subscription","customer":"cus_1"}`, false)
	f.Add(body, sign(body, now, secretA))
	f.Add("{}", "t=1,v1=00")
	f.Add("", ",,t==,")
	c := newClient("sk_test_1", "", []string{secretA})
	f.Fuzz(func(t *testing.T, text, header string) {
		e, err := c.ReadEvent([]byte(text), header, now)
		if err == nil && (e.ID == "" || !strings.Contains(header, sign(text, now, secretA)[13:])) {
			t.Fatalf("accepted %q by %q", text, header)
		}
		// Signed by us, anything is either an event or refused without a panic.
		_, _ = c.ReadEvent([]byte(text), sign(text, now, secretA), now)
	})
}
