package answer

import (
	"cmp"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// maxSites bounds of how many sites it is kept what was learned. A client may
// make hosts up: it cannot push out those that are in use.
const maxSites = 256

// Sites keeps what was learned of the backends of each site, so that a new
// config knows what an old one has seen. It is safe for concurrent use; the zero
// value knows nothing.
type Sites struct {
	mu    sync.Mutex // of writers
	known atomic.Pointer[map[site]*learned]
}

// learned is what backends of a site have said, and when it was last asked for.
type learned struct {
	CORS
	used atomic.Int64 // Unix time, ns
}

// site is whose backends they are. The host alone would not do: a client may ask
// one server by the host of another's.
type site struct{ server, host string }

// Origins are the origins whose scripts may read the denials of one handler: those
// of its config, and those that the backends of the site let read their answers.
type Origins struct {
	sites      *Sites
	server     string
	configured *CORS
}

// Of is what a handler of the named server goes by. Configured origins are as
// in NewCORS, and are the handler's own.
func (s *Sites) Of(server string, configured ...string) *Origins {
	return &Origins{sites: s, server: server, configured: NewCORS(configured...)}
}

// Observe learns from the headers of the answer to a request for host, as CORS.Observe does.
func (o *Origins) Observe(host, origin string, h http.Header) {
	if len(h[keyAllowOrigin]) != 1 || len(host) > maxOriginLength {
		return
	}
	at := site{o.server, host}
	if c := o.sites.find(at); c != nil {
		c.Observe(origin, h)
		return
	}
	var news CORS
	if news.Observe(origin, h); news.grants.Load() != nil {
		o.sites.add(at).Observe(origin, h)
	}
}

// Apply adds to a denial what lets a script of the request's origin read it, as CORS.Apply does.
func (o *Origins) Apply(h http.Header, r *http.Request) {
	var said *grants
	if c := o.sites.find(site{o.server, r.Host}); c != nil {
		said = c.grants.Load()
	}
	permit(h, r, o.configured.grants.Load(), said)
}

func (s *Sites) find(at site) *learned {
	known := s.known.Load()
	if known == nil {
		return nil
	}
	c := (*known)[at]
	if c != nil {
		c.used.Store(time.Now().UnixNano())
	}
	return c
}

// add finds the site or makes it, in the place of the one not asked for the longest
// where there are too many.
func (s *Sites) add(at site) *learned {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.find(at); c != nil {
		return c
	}
	next := map[site]*learned{}
	if known := s.known.Load(); known != nil {
		maps.Copy(next, *known)
	}
	if len(next) == maxSites {
		delete(next, slices.MinFunc(slices.Collect(maps.Keys(next)), func(a, b site) int {
			return cmp.Compare(next[a].used.Load(), next[b].used.Load())
		}))
	}
	c := &learned{}
	c.used.Store(time.Now().UnixNano())
	next[at] = c
	s.known.Store(&next)
	return c
}
