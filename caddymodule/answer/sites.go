package answer

import (
	"maps"
	"net/http"
	"sync"
	"sync/atomic"
)

// maxSites bounds of how many sites it is kept what was learned. A client may
// make hosts up.
const maxSites = 256

// Sites keeps what was learned of the backends of each site, so that a new
// config knows what an old one has seen. It is safe for concurrent use; the zero
// value knows nothing.
type Sites struct {
	mu    sync.Mutex // of writers
	known atomic.Pointer[map[site]*CORS]
	order []site // in which they were learned; guarded by mu
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
	learned := &CORS{}
	if learned.Observe(origin, h); learned.grants.Load() != nil {
		o.sites.add(at).Observe(origin, h)
	}
}

// Apply adds to a denial what lets a script of the request's origin read it, as CORS.Apply does.
func (o *Origins) Apply(h http.Header, r *http.Request) {
	var learned *grants
	if c := o.sites.find(site{o.server, r.Host}); c != nil {
		learned = c.grants.Load()
	}
	permit(h, r, o.configured.grants.Load(), learned)
}

func (s *Sites) find(at site) *CORS {
	if known := s.known.Load(); known != nil {
		return (*known)[at]
	}
	return nil
}

// add finds the site or makes it, in the place of the oldest where there are too many.
func (s *Sites) add(at site) *CORS {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.find(at); c != nil {
		return c
	}
	next := map[site]*CORS{}
	if known := s.known.Load(); known != nil {
		maps.Copy(next, *known)
	}
	if len(s.order) == maxSites {
		delete(next, s.order[0])
		s.order = append(s.order[:0], s.order[1:]...)
	}
	s.order = append(s.order, at)
	c := &CORS{}
	next[at] = c
	s.known.Store(&next)
	return c
}
