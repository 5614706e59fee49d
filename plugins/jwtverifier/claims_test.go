package jwtverifier

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/gatetest"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

func TestPrincipal(t *testing.T) {
	t.Parallel()
	now := time.Now().Truncate(time.Second)
	base := map[string]any{"iat": now.Unix(), "exp": now.Add(time.Hour).Unix()}
	want := func(change func(*quota.Principal)) *quota.Principal {
		p := &quota.Principal{Subject: "user:u1", IssuedAt: now, Expires: now.Add(time.Hour)}
		change(p)
		return p
	}
	tests := map[string]struct {
		claims map[string]any
		want   *quota.Principal
	}{
		"string":     {map[string]any{"sub": "u1"}, want(func(*quota.Principal) {})},
		"integer":    {map[string]any{"sub": 42}, want(func(p *quota.Principal) { p.Subject = "user:42" })},
		"negative":   {map[string]any{"sub": -7}, want(func(p *quota.Principal) { p.Subject = "user:-7" })},
		"not parsed": {map[string]any{"sub": "org:{*} ü"}, want(func(p *quota.Principal) { p.Subject = "user:org:{*} ü" })},
		"longest": {map[string]any{"sub": strings.Repeat("x", 255)}, want(func(p *quota.Principal) {
			p.Subject = quota.UserSubject(strings.Repeat("x", 255))
		})},
		"all": {
			map[string]any{"sub": "u1", "org_id": "o1", "sid": "s1", "email": "a@example.com"},
			want(func(p *quota.Principal) { p.Org, p.Session, p.Email = "o1", "s1", "a@example.com" }),
		},
		"integers": {
			map[string]any{"sub": "u1", "org_id": 5, "sid": 6},
			want(func(p *quota.Principal) { p.Org, p.Session = "5", "6" }),
		},
		"empty": {map[string]any{"sub": "u1", "org_id": "", "sid": "", "email": 3, "email_verified": true}, want(func(*quota.Principal) {})},
		"verified": {
			map[string]any{"sub": "u1", "email": "a@x", "email_verified": true},
			want(func(p *quota.Principal) { p.Email, p.EmailState = "a@x", quota.EmailVerified }),
		},
		"verified, as text": {
			map[string]any{"sub": "u1", "email": "a@x", "email_verified": "true"},
			want(func(p *quota.Principal) { p.Email, p.EmailState = "a@x", quota.EmailVerified }),
		},
		"not verified":     {map[string]any{"sub": "u1", "email": "a@x", "email_verified": false}, want(func(p *quota.Principal) { p.Email, p.EmailState = "a@x", quota.EmailUnverified })},
		"nearly verified":  {map[string]any{"sub": "u1", "email": "a@x", "email_verified": 1}, want(func(p *quota.Principal) { p.Email, p.EmailState = "a@x", quota.EmailUnverified })},
		"another verified": {map[string]any{"sub": "u1", "email": "a@x", "Email_Verified": true}, want(func(p *quota.Principal) { p.Email = "a@x" })},
		"other spelling":   {map[string]any{"sub": "u1", "Sub": "u2", "SUB": "u3", "Org_ID": "o"}, want(func(*quota.Principal) {})},
		"impersonated":     {map[string]any{"sub": "u1", "impersonated_by": "a1"}, want(func(p *quota.Principal) { p.Impersonator = "a1" })},
		"actor": {
			map[string]any{"sub": "u1", "act": map[string]any{"sub": "a2"}},
			want(func(p *quota.Principal) { p.Impersonator = "a2" }),
		},
		"unknown actor": {
			map[string]any{"sub": "u1", "act": map[string]any{}},
			want(func(p *quota.Principal) { p.Impersonator = "unknown" }),
		},
		"no iat": {map[string]any{"sub": "u1", "iat": nil}, want(func(p *quota.Principal) { p.IssuedAt = time.Time{} })},
	}
	v := hmac(t)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := bearer(t, v, gatetest.HS256(testSecret, gatetest.With(base, tt.claims)))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestOtherClaims(t *testing.T) {
	t.Parallel()
	v := hmac(t, "user_claim uid", "org_claim https://example.com/org", "session_claim jti")
	p := accept(t, v, signed(map[string]any{"uid": "u9", "https://example.com/org": "o9", "jti": "j9"}), "u9")
	if p.Org != "o9" || p.Session != "j9" {
		t.Errorf("org %q, session %q", p.Org, p.Session)
	}
	_, err := bearer(t, v, signed(nil))
	refuse(t, err, `no claim "uid"`)
}

// Payloads are raw: most of them no encoder would make.
func TestRefusedClaims(t *testing.T) {
	t.Parallel()
	future := time.Now().Add(time.Hour).Unix()
	exp := fmt.Sprintf(`"exp":%d`, future)
	tests := map[string]struct{ payload, reason string }{
		"no exp":               {`{"sub":"u1"}`, "no exp"},
		"null exp":             {`{"sub":"u1","exp":null}`, "exp is not a number"},
		"string exp":           {fmt.Sprintf(`{"sub":"u1","exp":"%d"}`, future), "exp is not a number"},
		"bool exp":             {`{"sub":"u1","exp":true}`, "exp is not a number"},
		"spelled exp":          {fmt.Sprintf(`{"sub":"u1","Exp":%d}`, future), "no exp"},
		"NaN exp":              {`{"sub":"u1","exp":NaN}`, "malformed"},
		"infinite exp":         {`{"sub":"u1","exp":1e999}`, "out of range"},
		"far exp":              {`{"sub":"u1","exp":253402300800}`, "out of range"},
		"overflowing exp":      {`{"sub":"u1","exp":92233720368547758080}`, "out of range"},
		"milliseconds":         {fmt.Sprintf(`{"sub":"u1","exp":%d000}`, future), "out of range"},
		"negative exp":         {`{"sub":"u1","exp":-1}`, "out of range"},
		"hexadecimal exp":      {`{"sub":"u1","exp":0x7fffffff}`, "malformed"},
		"expired":              {fmt.Sprintf(`{"sub":"u1","exp":%d}`, time.Now().Add(-31*time.Second).Unix()), "expired"},
		"epoch":                {`{"sub":"u1","exp":0}`, "expired"},
		"nbf in the future":    {fmt.Sprintf(`{"sub":"u1","nbf":%d,%s}`, time.Now().Add(30*time.Minute).Unix(), exp), "not valid yet"},
		"string nbf":           {`{"sub":"u1","nbf":"1",` + exp + `}`, "nbf is not a number"},
		"null nbf":             {`{"sub":"u1","nbf":null,` + exp + `}`, "nbf is not a number"},
		"iat in the future":    {fmt.Sprintf(`{"sub":"u1","iat":%d,%s}`, time.Now().Add(30*time.Minute).Unix(), exp), "future"},
		"object iat":           {`{"sub":"u1","iat":{},` + exp + `}`, "iat is not a number"},
		"no sub":               {`{` + exp + `}`, `no claim "sub"`},
		"empty sub":            {`{"sub":"",` + exp + `}`, `no claim "sub"`},
		"null sub":             {`{"sub":null,` + exp + `}`, `no claim "sub"`},
		"spelled sub":          {`{"Sub":"u1",` + exp + `}`, `no claim "sub"`},
		"fraction sub":         {`{"sub":1.5,` + exp + `}`, "not an integer"},
		"whole fraction sub":   {`{"sub":1.0,` + exp + `}`, "not an integer"},
		"exponent sub":         {`{"sub":1e3,` + exp + `}`, "not an integer"},
		"minus zero sub":       {`{"sub":-0,` + exp + `}`, "not an integer"},
		"list sub":             {`{"sub":["u1"],` + exp + `}`, "neither a string nor an integer"},
		"bool sub":             {`{"sub":true,` + exp + `}`, "neither a string nor an integer"},
		"long sub":             {`{"sub":"` + strings.Repeat("x", 256) + `",` + exp + `}`, "longer than 255"},
		"newline sub":          {`{"sub":"u1\n",` + exp + `}`, "control character"},
		"NUL sub":              {`{"sub":"u1\u0000",` + exp + `}`, "control character"},
		"C1 sub":               {`{"sub":"u1\u0085",` + exp + `}`, "control character"},
		"space before sub":     {`{"sub":" u1",` + exp + `}`, "white space"},
		"space behind sub":     {`{"sub":"u1 ",` + exp + `}`, "white space"},
		"no-break space sub":   {`{"sub":"u1\u00a0",` + exp + `}`, "white space"},
		"space for a sub":      {`{"sub":" ",` + exp + `}`, "white space"},
		"space behind org":     {`{"sub":"u1","org_id":"o1 ",` + exp + `}`, `"org_id" begins or ends with white space`},
		"lone surrogate sub":   {`{"sub":"u\ud800",` + exp + `}`, "surrogate"},
		"broken UTF-8 sub":     {"{\"sub\":\"u\xff\"," + exp + `}`, "not UTF-8"},
		"bad org":              {`{"sub":"u1","org_id":[],` + exp + `}`, `"org_id" is neither`},
		"bad session":          {`{"sub":"u1","sid":1.5,` + exp + `}`, `"sid" is not an integer`},
		"bad impersonator":     {`{"sub":"u1","impersonated_by":{},` + exp + `}`, `"impersonated_by" is neither`},
		"duplicate sub":        {`{"sub":"u1","sub":"u2",` + exp + `}`, "twice"},
		"escaped duplicate":    {`{"sub":"u1","s\u0075b":"u2",` + exp + `}`, "twice"},
		"nested duplicate":     {`{"sub":"u1","x":{"a":1,"a":1},` + exp + `}`, "twice"},
		"duplicate in a list":  {`{"sub":"u1","x":[{"a":1,"a":1}],` + exp + `}`, "twice"},
		"number aud":           {`{"sub":"u1","aud":7,` + exp + `}`, "aud is neither"},
		"mixed aud":            {`{"sub":"u1","aud":["a",7],` + exp + `}`, "aud holds more"},
		"array payload":        {`["u1"]`, "not a JSON object"},
		"text payload":         {`u1`, "not a JSON object"},
		"trailing data":        {`{"sub":"u1",` + exp + `}{}`, "malformed"},
		"byte order mark":      {"\ufeff" + `{"sub":"u1",` + exp + `}`, "not a JSON object"},
		"comment":              {`{"sub":"u1",` + exp + `/**/}`, "malformed"},
		"trailing comma":       {`{"sub":"u1",` + exp + `,}`, "malformed"},
		"deep":                 {`{"sub":"u1",` + exp + `,"x":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`, "deeper"},
		"raw control in a key": {"{\"sub\":\"u1\",\"a\tb\":1," + exp + `}`, "malformed"},
	}
	v := hmac(t)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			token := gatetest.SignRaw("HS256", []byte(testSecret), `{"alg":"HS256"}`, tt.payload)
			_, err := bearer(t, v, token)
			refuse(t, err, tt.reason)
		})
	}
}

func TestAcceptedClaims(t *testing.T) {
	t.Parallel()
	now := time.Now()
	tests := map[string]struct {
		options string
		claims  map[string]any
		reason  string // of the refusal, "" for none
	}{
		"fraction":             {"", map[string]any{"exp": float64(now.UnixMilli())/1000 + 1800}, ""},
		"exponent":             {"", map[string]any{"exp": 9.9e9}, ""},
		"expired in leeway":    {"leeway 1h", map[string]any{"exp": now.Add(-20 * time.Minute).Unix()}, ""},
		"early in leeway":      {"leeway 1h", map[string]any{"nbf": now.Add(20 * time.Minute).Unix()}, ""},
		"issued in leeway":     {"leeway 1h", map[string]any{"iat": now.Add(20 * time.Minute).Unix()}, ""},
		"no leeway":            {"leeway 0s", map[string]any{"exp": now.Add(-2 * time.Second).Unix()}, "expired"},
		"no leeway, nbf":       {"leeway 0s", map[string]any{"nbf": now.Add(20 * time.Minute).Unix()}, "nbf"},
		"audience":             {"audience api other", map[string]any{"aud": "api"}, ""},
		"audience in a list":   {"audience api", map[string]any{"aud": []string{"x", "api"}}, ""},
		"other audience":       {"audience api", map[string]any{"aud": "api2"}, "audience"},
		"other list":           {"audience api", map[string]any{"aud": []string{"x", "API"}}, "audience"},
		"empty list":           {"audience api", map[string]any{"aud": []string{}}, "audience"},
		"no audience":          {"audience api", nil, "audience"},
		"audience not asked":   {"", map[string]any{"aud": "api"}, ""},
		"access":               {"require type access", nil, ""},
		"refresh":              {"require type access", map[string]any{"type": "refresh"}, `"type" is not "access"`},
		"spelled type":         {"require type access", map[string]any{"type": nil, "Type": "access"}, `"type" is not`},
		"no type":              {"require type access", map[string]any{"type": nil}, `"type" is not`},
		"list type":            {"require type access", map[string]any{"type": []string{"access"}}, `"type" is not`},
		"true":                 {"require email_verified true", map[string]any{"email_verified": true}, ""},
		"false":                {"require email_verified true", map[string]any{"email_verified": false}, "is not"},
		"number":               {"require ver 2", map[string]any{"ver": 2}, ""},
		"other number":         {"require ver 2", map[string]any{"ver": 2.5}, "is not"},
		"both":                 {"require type access\nrequire ver 2", map[string]any{"ver": 2}, ""},
		"the second":           {"require type access\nrequire ver 2", nil, `"ver" is not`},
		"issuer":               {"issuer https://a", map[string]any{"iss": "https://a"}, ""},
		"whatever issuer":      {"", map[string]any{"iss": 7}, ""},
		"null org and session": {"", map[string]any{"x": nil}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := bearer(t, hmac(t, tt.options), signed(tt.claims))
			if tt.reason != "" {
				refuse(t, err, tt.reason)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

// The default leeway is 30 seconds, to the second.
func TestLeeway(t *testing.T) {
	t.Parallel()
	synctestRun(t, func(t *testing.T) {
		v := hmac(t)
		now := time.Now()
		for claim, tests := range map[string]map[time.Duration]string{
			"exp": {-29 * time.Second: "", -30 * time.Second: "expired"},
			"nbf": {30 * time.Second: "", 31 * time.Second: "nbf"},
			"iat": {30 * time.Second: "", 31 * time.Second: "iat"},
		} {
			for at, reason := range tests {
				_, err := bearer(t, v, signed(map[string]any{claim: now.Add(at).Unix()}))
				if reason != "" {
					refuse(t, err, reason)
				} else if err != nil {
					t.Errorf("%s at %s: %v", claim, at, err)
				}
			}
		}
	})
}
