package gate

import "strings"

// cookieSpace is what backends in use trim around the parts of a cookie.
const cookieSpace = " \t\v\f\x1c\x1d\x1e\x1f\x85\xa0"

// TrimCookie trims a name or a value of a Cookie header (RFC 6265, section 4.2.1)
// as the most lenient of backends do. It trims bytes, where strings.Trim would trim
// characters of UTF-8.
func TrimCookie(s string) string {
	for s != "" && strings.IndexByte(cookieSpace, s[0]) >= 0 {
		s = s[1:]
	}
	for s != "" && strings.IndexByte(cookieSpace, s[len(s)-1]) >= 0 {
		s = s[:len(s)-1]
	}
	return s
}
