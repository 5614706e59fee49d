package jwtverifier

import (
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

// BenchmarkHit is a token of the cache, by all processors at once.
func BenchmarkHit(b *testing.B) {
	v := hmac(b)
	r := request(b, "Authorization", "Bearer "+signed(map[string]any{"sid": "s1", "email": "a@example.com"}))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := v.Verify(r.Context(), r); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkMiss verifies each time, with the key of each family.
func BenchmarkMiss(b *testing.B) {
	for _, alg := range []string{"HS256", "RS256", "PS256", "ES256", "EdDSA"} {
		b.Run(alg, func(b *testing.B) {
			k := newKey(b, alg, "k1", 0)
			v := provision(b, "jwks "+gatetest.NewIssuer(b, k).URL+"\nalgorithms "+alg)
			token := k.Sign(claims(map[string]any{"sid": "s1", "email": "a@example.com"}))
			accept(b, v, token, "u1")
			keys := v.core.known()
			set := keySet{keys: keys.keys, named: true, epoch: keys.epoch}
			b.ReportAllocs()
			for b.Loop() {
				set.epoch++ // so that the cache never knows it
				if _, err := v.core.verify(b.Context(), token, &set, time.Now()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRefused is what floods of bad tokens cost.
func BenchmarkRefused(b *testing.B) {
	v := hmac(b, "issuer me")
	for name, token := range map[string]string{
		"unclaimed": signed(map[string]any{"iss": "you"}),
		"expired":   signed(map[string]any{"iss": "me", "exp": 1}),
		"forged":    gatetest.HS256("0123456789abcdef0123456789abcdeF", claims(map[string]any{"iss": "me"})),
	} {
		b.Run(name, func(b *testing.B) {
			r := request(b, "Authorization", "Bearer "+token)
			b.ReportAllocs()
			for b.Loop() {
				if p, err := v.Verify(r.Context(), r); err == nil {
					b.Fatalf("verified %v", p)
				}
			}
		})
	}
}
