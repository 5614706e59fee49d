package answer

import (
	"maps"
	"net/http"
	"sync"
	"sync/atomic"
)

// exposed are the headers of ours that a script may read.
const exposed = "RateLimit, RateLimit-Policy, Retry-After, X-Quota-Decision-Id, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset"

// The bounds of what is learned.
const (
	maxOrigins      = 128
	maxOriginLength = 255
)

const (
	keyAllowOrigin      = "Access-Control-Allow-Origin"
	keyAllowCredentials = "Access-Control-Allow-Credentials"
	keyExposeHeaders    = "Access-Control-Expose-Headers"
)

// CORS knows which origins may read the answers of a backend that keeps its
// own CORS policy. Without its headers a browser shows a denial as a network
// error: the gateway says of a denial what the backend says of its answers,
// and never more. It is safe for concurrent use; the zero value knows nothing.
type CORS struct {
	mu      sync.Mutex // of writers
	grants  atomic.Pointer[grants]
	learned []string // origins in the order in which they were learned; guarded by mu
}

// grants is never written to after it was published.
type grants struct {
	any     bool            // "*", never with credentials
	origins map[string]bool // credentials, by origin
}

// NewCORS grants the configured origins from the start, with credentials; "*"
// stands for every origin, without.
func NewCORS(configured ...string) *CORS {
	c := &CORS{}
	g := &grants{origins: make(map[string]bool, len(configured))}
	for _, o := range configured {
		if o == "*" {
			g.any = true
		} else {
			g.origins[o] = true
		}
	}
	c.grants.Store(g)
	return c
}

// Observe learns from the headers of a backend's answer to a request with the
// given Origin (empty: none): that every origin may read it, or that this one
// may. At most 128 origins are kept, the oldest goes. An answer without CORS
// headers teaches nothing: backends leave them out of some errors. For the same
// reason credentials, once allowed to an origin, stay: of two backends behind
// one gateway one may not need them.
func (c *CORS) Observe(requestOrigin string, h http.Header) {
	values := h[keyAllowOrigin]
	if len(values) != 1 {
		return
	}
	g := c.grants.Load()
	if values[0] == "*" {
		if g == nil || !g.any {
			c.learn("*", false)
		}
		return
	}
	if requestOrigin == "" || values[0] != requestOrigin || len(requestOrigin) > maxOriginLength {
		return
	}
	credentials := len(h[keyAllowCredentials]) == 1 && h[keyAllowCredentials][0] == "true"
	if g != nil {
		if had, ok := g.origins[requestOrigin]; ok && (had || !credentials) {
			return
		}
	}
	c.learn(requestOrigin, credentials)
}

func (c *CORS) learn(origin string, credentials bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := &grants{origins: map[string]bool{}}
	if g := c.grants.Load(); g != nil {
		next.any = g.any
		maps.Copy(next.origins, g.origins)
	}
	if origin == "*" {
		next.any = true
		c.grants.Store(next)
		return
	}
	if _, ok := next.origins[origin]; !ok {
		if len(c.learned) == maxOrigins {
			delete(next.origins, c.learned[0])
			c.learned = append(c.learned[:0], c.learned[1:]...)
		}
		c.learned = append(c.learned, origin)
	}
	next.origins[origin] = credentials
	c.grants.Store(next)
}

// Apply adds to a denial what lets a script of the request's origin read it,
// where the backend would let it. Headers that stand there already win.
func (c *CORS) Apply(h http.Header, r *http.Request) { permit(h, r, c.grants.Load()) }

// permit is Apply by all that is known.
func permit(h http.Header, r *http.Request, known ...*grants) {
	origins := r.Header["Origin"]
	if len(origins) != 1 || origins[0] == "" {
		return
	}
	if _, ok := h[keyAllowOrigin]; !ok && !nameOrigin(h, origins[0], known) {
		return
	}
	if _, ok := h[keyExposeHeaders]; !ok {
		h[keyExposeHeaders] = []string{exposed}
	}
}

// nameOrigin names the origin where it is known, and else says "*" if every origin may read.
func nameOrigin(h http.Header, origin string, known []*grants) bool {
	anyone := false
	for _, g := range known {
		if g == nil {
			continue
		}
		if credentials, ok := g.origins[origin]; ok {
			h[keyAllowOrigin] = []string{origin}
			if credentials {
				h[keyAllowCredentials] = []string{"true"}
			}
			addVary(h, "Origin")
			return true
		}
		anyone = anyone || g.any
	}
	if anyone {
		h[keyAllowOrigin] = []string{"*"}
	}
	return anyone
}

// IsPreflight reports whether the request is a CORS preflight (Fetch, 4.9): it
// carries no credential by design, and passes unauthenticated and uncounted.
func IsPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Origin") != "" &&
		r.Header.Get("Access-Control-Request-Method") != ""
}
