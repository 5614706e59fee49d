package jwtverifier

import (
	"strings"
	"testing"
)

// The examples of RFC 7515 (A.1, A.3) and RFC 8037 (A.4), whose keys stand there with their private parts.
func TestPublishedExamples(t *testing.T) {
	t.Parallel()
	const claims = "{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n \"http://example.com/is_root\":true}"
	for name, tt := range map[string]struct{ alg, jwk, token, payload string }{
		"RFC 7515 A.1": {
			"HS256", `{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}`,
			"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ." +
				"dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", claims,
		},
		"RFC 7515 A.3": {
			"ES256", `{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
				"d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"}`,
			"eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ." +
				"DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q", claims,
		},
		"RFC 8037 A.4": {
			"EdDSA", `{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`,
			"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc." +
				"hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg", "Example of Ed25519 signing",
		},
	} {
		for _, jwks := range []string{tt.jwk, `{"keys":[` + tt.jwk + `]}`} {
			payload, err := VerifyCompact(tt.token, []byte(jwks), []string{tt.alg})
			if err != nil || string(payload) != tt.payload {
				t.Errorf("%s: %q, %v", name, payload, err)
			}
		}
		// The signature covers every byte before it, and is every byte behind.
		head, sig, _ := strings.Cut(tt.token, ".")
		body, sig, _ := strings.Cut(sig, ".")
		for _, forged := range []string{
			head + "." + body[:len(body)-4] + "AAAA." + sig, head + "." + body + "." + sig[:4] + "AAAA" + sig[8:],
			head + "." + body + "." + sig + "AAAA", head + "." + body + "." + sig[:len(sig)-4], tt.token + "=",
		} {
			if _, err := VerifyCompact(forged, []byte(tt.jwk), []string{tt.alg}); err == nil {
				t.Errorf("%s: verified with another payload or signature: %s", name, forged)
			}
		}
	}
}
