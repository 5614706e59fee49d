package address

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Redis{
		"redis://h":                           {Kind: KindSingle, Hosts: []string{"h:6379"}},
		"redis://:p%40s@[::1]:7/3":            {Kind: KindSingle, Hosts: []string{"[::1]:7"}, DB: 3, Password: "p@s"},
		"redis://u:p@h?db=4":                  {Kind: KindSingle, Hosts: []string{"h:6379"}, DB: 4, Username: "u", Password: "p"},
		"rediss://h?server_name=r":            {Kind: KindTLS, Hosts: []string{"h:6379"}, TLS: &TLS{ServerName: "r"}},
		"unix:///run/r.sock?db=1":             {Kind: KindSocket, Hosts: []string{"/run/r.sock"}, DB: 1},
		"redis+cluster://a,b:7":               {Kind: KindCluster, Hosts: []string{"a:6379", "b:7"}},
		"redis+cluster://a redis+cluster://b": {Kind: KindCluster, Hosts: []string{"a:6379", "b:6379"}},
		"redis+sentinel://a,b/m?sentinel_password=x&tls=true&ca=/c": {
			Kind: KindSentinel, Hosts: []string{"a:26379", "b:26379"}, Master: "m", SentinelPassword: "x", TLS: &TLS{CA: "/c"},
		},
	} {
		got, err := Parse(strings.Fields(text)...)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", text, diff)
		}
	}
	for _, text := range []string{
		"", "h:6379", "http://h", "redis://", "redis://a,b", "redis://h:0", "redis://h:x", "redis://h/x", "redis://h/-1", "redis://h?x=1",
		"redis://h?db=1&db=2", "redis://h?tls=true", "redis://%zz@h", "redis://h?%zz", "unix://h/x", "unix://", "redis+cluster://a/1",
		"redis+cluster://a?db=1", "redis+sentinel://a", "redis+sentinel://a/m/n", "redis+sentinel://a/m?tls=maybe", "redis://a redis://b",
		"redis+cluster://a redis+sentinel://b/m", "redis+cluster://u:1@a redis+cluster://u:2@b",
	} {
		if a, err := Parse(strings.Fields(text)...); err == nil {
			t.Errorf("%s is taken as %+v", text, a)
		}
	}
}

// FuzzParse: no text breaks the parser, and an error never quotes a password.
func FuzzParse(f *testing.F) {
	f.Add("redis://user:", "@host:6379/0?db=1")
	f.Add("redis+sentinel://:", "@a,b/m?sentinel_password=")
	f.Fuzz(func(t *testing.T, before, after string) {
		const secret = "s3cr3t/p?ss#w0rd"
		a, err := Parse(before + secret + after)
		if err != nil && strings.Contains(after, "@") && strings.HasSuffix(before, ":") && strings.Contains(err.Error(), "w0rd") {
			t.Errorf("%v", err)
		}
		if err == nil && len(a.Hosts) == 0 {
			t.Errorf("no host in %+v", a)
		}
	})
}
