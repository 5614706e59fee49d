package profile

import "net/http"

// Prepare is the request as it has to go upstream for its answer to be
// editable: a shallow copy whose header lacks
//
//   - Accept-Encoding: an encoded body cannot be spliced;
//   - of GET and HEAD, If-None-Match and If-Modified-Since: the backend's
//     validators speak of its own body. A client that still holds one (from
//     before the member was added, or for another plan) would be told 304 about a
//     body that it does not have;
//   - of GET and HEAD, Range and If-Range: a part of the backend's body is no
//     part of the edited one. A server may always ignore Range (RFC 9110, 14.2).
//
// Preconditions of writes (If-Match, If-None-Match: *, If-Unmodified-Since) stay:
// they protect the backend's data. The request itself is not changed, so that
// an encoder in front still sees what the client accepts.
func Prepare(r *http.Request) *http.Request {
	up := r.WithContext(r.Context())
	up.Header = r.Header.Clone()
	up.Header.Del("Accept-Encoding")
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		for _, name := range []string{"If-None-Match", "If-Modified-Since", "Range", "If-Range"} {
			up.Header.Del(name)
		}
	}
	return up
}
