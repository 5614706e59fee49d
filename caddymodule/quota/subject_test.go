package quota

import (
	"crypto/sha256"
	"net/netip"
	"strings"
	"testing"
)

func FuzzSubject(f *testing.F) {
	for _, id := range []string{"", "1", "a:b", "{0001}", "*", "\n", "user:1", "\x00\xff", strings.Repeat("x", 255)} {
		f.Add(id, id+"x")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		user, org := UserSubject(a), OrgSubject(a)
		if user.Kind() != "user" || user.ID() != a || org.Kind() != "org" || org.ID() != a {
			t.Errorf("%q is read back as %q %q, %q %q", a, user.Kind(), user.ID(), org.Kind(), org.ID())
		}
		if user.Digest() == org.Digest() {
			t.Errorf("user and organization %q meet", a)
		}
		if (user.Digest() == UserSubject(b).Digest()) != (a == b) {
			t.Errorf("%q and %q meet, or one does not meet itself", a, b)
		}
		if sum := sha256.Sum256([]byte(user)); user.Digest() != Digest(sum[:16]) {
			t.Errorf("the digest of %q is not the first half of its SHA-256", user)
		}
	})
}

func TestIPSubject(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ prefix, want string }{
		{"192.0.2.77/32", "ip:192.0.2.77/32"},
		{"192.0.2.77/24", "ip:192.0.2.0/24"},
		{"2001:db8:1:2:3:4:5:6/64", "ip:2001:db8:1:2::/64"},
	} {
		if got := IPSubject(netip.MustParsePrefix(tt.prefix)); string(got) != tt.want {
			t.Errorf("%s is %s", tt.prefix, got)
		}
	}
}

func TestPrincipal(t *testing.T) {
	t.Parallel()
	var nobody Principal
	if !nobody.Anonymous() || nobody.HasScope("") {
		t.Error("the zero principal is somebody")
	}
	p := Principal{Subject: UserSubject("1"), Scopes: []string{"jobs:read"}}
	if p.Anonymous() || !p.HasScope("jobs:read") || p.HasScope("jobs") {
		t.Errorf("%+v", p)
	}
}
