package jwtverifier

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
	"github.com/quotagate/quotagate/caddymodule/gate"
	"github.com/quotagate/quotagate/caddymodule/gatetest"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

func FuzzParseObject(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"a":1,"a":2}`, `{"a":[1,-0.5e+3,true,null,"\ud83d\ude00"]}`, `{"a":"\ud800"}`, `{"\u0061":1,"a":{}}`, "{\"\xff\":1}",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		object, err := parseObject(text)
		if err != nil {
			return
		}
		// What we take, everybody reads alike; and it has no second spelling of a member.
		sameAsStandard(t, text, object)
	})
}

// FuzzVerifyCompact: what is accepted is canonical, and the library that
// backends use accepts it too.
func FuzzVerifyCompact(f *testing.F) {
	key := &gatetest.Key{Alg: "HS256", Kid: "k", Private: []byte(testSecret)}
	set := []byte(gatetest.JWKS(key))
	good := key.Sign(claims(nil))
	f.Add(good)
	f.Add(good + "=")
	f.Add(key.SignRaw(`{"alg":"HS256","kid":"k","crit":["x"]}`, "{}"))
	f.Add(key.SignRaw(`{"alg":"none"}`, "{}"))
	f.Add("..")
	f.Fuzz(func(t *testing.T, token string) {
		checkCanonical(t, token, set)
		// Signed, so that header and payload are reached behind the signature.
		head, body, _ := strings.Cut(token, ".")
		checkCanonical(t, key.SignRaw(head, body), set)
		sig, err := jwt.SigningMethodHS256.Sign(head+"."+body, []byte(testSecret))
		if err != nil {
			t.Fatal(err)
		}
		checkCanonical(t, head+"."+body+"."+gatetest.Encode(string(sig)), set)
	})
}

func checkCanonical(t *testing.T, token string, set []byte) {
	t.Helper()
	payload, err := VerifyCompact(token, set, []string{"HS256"})
	if err != nil {
		return
	}
	parts := strings.Split(token, ".")
	for i, part := range parts {
		raw, err := base64.RawURLEncoding.DecodeString(part)
		if err != nil || base64.RawURLEncoding.EncodeToString(raw) != part || i == 1 && string(raw) != string(payload) {
			t.Fatalf("part %d of %q is not canonical: %v", i, token, err)
		}
	}
	if len(parts) != 3 || len(payload) == 0 {
		t.Fatalf("accepted %q", token)
	}
	var claims map[string]any
	if json.Unmarshal(payload, &claims) != nil {
		return // a JWS, but no JWT
	}
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"HS256"}), jwt.WithoutClaimsValidation(), jwt.WithStrictDecoding())
	_, err = parser.Parse(token, func(*jwt.Token) (any, error) { return []byte(testSecret), nil })
	if err != nil {
		t.Fatalf("golang-jwt refuses %q: %v", token, err)
	}
}

// FuzzRequest: no header makes the verifier panic, or answer but by contract.
func FuzzRequest(f *testing.F) {
	u1 := gatetest.HS256(testSecret, map[string]any{"sub": "u1", "exp": 9999999999})
	f.Add("Bearer "+u1, "tok="+u1)
	f.Add("bearer", `a=b;tok="`+u1+`" ;;=`)
	f.Add("Basic x", "tok=\xa0; tok")
	f.Add("", "")
	v := hmac(f, "cookie tok")
	f.Fuzz(func(t *testing.T, authorization, cookie string) {
		r := request(t)
		r.Header = http.Header{"Authorization": {authorization}, "Cookie": {cookie}}
		p, err := v.Verify(t.Context(), r)
		var bad *gate.InvalidError
		switch {
		case err == nil:
			if p.Subject != "user:u1" || !strings.Contains(authorization+cookie, u1) {
				t.Fatalf("%v by %q and %q", p, authorization, cookie)
			}
		case p != nil:
			t.Fatal("a principal beside an error")
		case !errors.Is(err, gate.ErrNoCredential) && !errors.Is(err, gate.ErrUnclaimed) && !errors.As(err, &bad):
			t.Fatal(err)
		}
		// A cookie that net/http finds is never overlooked.
		if c, err := r.Cookie("tok"); err == nil && c.Value != "" {
			r.Header.Del("Authorization")
			if _, err := v.Verify(t.Context(), r); errors.Is(err, gate.ErrNoCredential) {
				t.Fatalf("the cookie in %q was overlooked", cookie)
			}
		}
	})
}

// FuzzClaims: a payload that is accepted names exactly the subject that
// encoding/json finds in it.
func FuzzClaims(f *testing.F) {
	for _, seed := range []string{
		`{"sub":"u1","exp":9999999999}`, `{"sub":42,"exp":9e9,"sid":"s"}`, `{"sub":"u1","Sub":"u2","exp":9999999999}`,
		`{"sub":"a","sub":"b","exp":9999999999}`, `{"sub":1e2,"exp":9999999999}`, `{"sub":"\u0000","exp":"x","act":{"sub":1}}`,
	} {
		f.Add(seed)
	}
	v := hmac(f)
	f.Fuzz(func(t *testing.T, payload string) {
		p, err := bearer(t, v, gatetest.SignRaw("HS256", []byte(testSecret), `{"alg":"HS256"}`, payload))
		if err != nil {
			return
		}
		var all map[string]any
		d := json.NewDecoder(strings.NewReader(payload))
		d.UseNumber()
		if err := d.Decode(&all); err != nil {
			t.Fatalf("accepted %q: %v", payload, err)
		}
		var want string
		switch sub := all["sub"].(type) {
		case string:
			want = sub
		case json.Number:
			want = sub.String()
		}
		if p.Subject != quota.UserSubject(want) || want == "" || len(want) > maxID || p.Expires.IsZero() {
			t.Fatalf("accepted %q as %v", payload, p)
		}
	})
}

// FuzzKeySet: no key set makes the parser panic or take an unfit key.
func FuzzKeySet(f *testing.F) {
	for _, alg := range []string{"HS256", "RS256", "ES256", "ES512", "EdDSA"} {
		f.Add(gatetest.JWKS(newKey(f, alg, "k", 0)))
	}
	f.Add(`{"kty":"RSA","n":"AA","e":"AQAB"}`)
	f.Add(`{"keys":[{"kty":"oct","k":"AAAA"},{"kty":"EC"}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		set, err := parseKeySet(text)
		if err != nil {
			return
		}
		kids := map[string]bool{}
		for i := range set.keys {
			k := &set.keys[i]
			if k.material == nil || k.hasKid && kids[k.kid] || k.print == [32]byte{} {
				t.Fatalf("took %+v", k)
			}
			kids[k.kid] = kids[k.kid] || k.hasKid
			if k.alg != "" && k.fits(findAlgorithm(k.alg)) != nil {
				t.Fatalf("a key does not fit its own algorithm: %+v", k)
			}
		}
		if !set.keeps(set) {
			t.Fatal("a set differs from itself")
		}
	})
}
