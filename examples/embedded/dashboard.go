package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"
)

const (
	eventEvery = time.Second
	slowFor    = 2 * time.Second
	maxUpload  = 1 << 30 // bytes
)

// job and file are rows of the dashboard backend.
type job struct {
	ID        string `json:"id"`
	Status    string `json:"status"`
	CreatedAt string `json:"created_at"`
	owner     string
}

type file struct {
	ID        string `json:"id"`
	Size      int64  `json:"size_bytes"`
	CreatedAt string `json:"created_at"`
	owner     string
}

// dashboardBackend stands in for the dashboard backend: jobs, items, files, an
// event stream and something slow. It counts nothing and refuses nobody who has
// a token.
type dashboardBackend struct {
	router
	mu    sync.Mutex
	jobs  []job
	files map[string]file
}

func newDashboardBackend(secret []byte) *dashboardBackend {
	d := &dashboardBackend{router: router{http.NewServeMux()}, files: map[string]file{}}
	d.mux.HandleFunc("POST /jobs", requireUser(secret, d.createJob))
	d.mux.HandleFunc("GET /jobs", requireUser(secret, d.listJobs))
	d.mux.HandleFunc("POST /files", requireUser(secret, d.upload))
	d.mux.HandleFunc("DELETE /files/{id}", requireUser(secret, d.remove))
	d.mux.HandleFunc("GET /items", listItems)
	d.mux.HandleFunc("GET /events", streamEvents)
	d.mux.HandleFunc("GET /slow", answerSlowly)
	d.mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	return d
}

func (d *dashboardBackend) createJob(w http.ResponseWriter, _ *http.Request, c *claims) {
	j := job{ID: uuid.NewString(), Status: "queued", CreatedAt: timestamp(time.Now()), owner: c.Subject}
	d.mu.Lock()
	d.jobs = append(d.jobs, j)
	d.mu.Unlock()
	writeJSON(w, http.StatusCreated, j)
}

func (d *dashboardBackend) listJobs(w http.ResponseWriter, _ *http.Request, c *claims) {
	own := []job{}
	d.mu.Lock()
	for _, j := range d.jobs {
		if j.owner == c.Subject {
			own = append(own, j)
		}
	}
	d.mu.Unlock()
	writeJSON(w, http.StatusOK, map[string]any{"jobs": own, "total": len(own)})
}

// upload keeps the size of what it is sent, and not the bytes.
func (d *dashboardBackend) upload(w http.ResponseWriter, r *http.Request, c *claims) {
	size, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, maxUpload))
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		writeError(w, http.StatusRequestEntityTooLarge, "File too large")
		return
	}
	if err != nil {
		writeError(w, http.StatusBadRequest, "There was an error reading the body")
		return
	}
	f := file{ID: uuid.NewString(), Size: size, CreatedAt: timestamp(time.Now()), owner: c.Subject}
	d.mu.Lock()
	d.files[f.ID] = f
	d.mu.Unlock()
	writeJSON(w, http.StatusCreated, f)
}

// remove says in X-Freed-Bytes what was given back.
func (d *dashboardBackend) remove(w http.ResponseWriter, r *http.Request, c *claims) {
	d.mu.Lock()
	f, ok := d.files[r.PathValue("id")]
	ok = ok && f.owner == c.Subject
	if ok {
		delete(d.files, f.ID)
	}
	d.mu.Unlock()
	if !ok {
		writeError(w, http.StatusNotFound, "File not found")
		return
	}
	w.Header().Set("X-Freed-Bytes", fmt.Sprint(f.Size))
	w.WriteHeader(http.StatusNoContent)
}

func listItems(w http.ResponseWriter, _ *http.Request) {
	type item struct {
		ID   int    `json:"id"`
		Name string `json:"name"`
	}
	writeJSON(w, http.StatusOK, []item{{1, "first"}, {2, "second"}, {3, "third"}})
}

// streamEvents sends an event each second until the client leaves.
func streamEvents(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	out := http.NewResponseController(w)
	tick := time.NewTicker(eventEvery)
	defer tick.Stop()
	for n := 1; ; n++ {
		if _, err := fmt.Fprintf(w, "id: %d\nevent: tick\ndata: {\"n\":%d}\n\n", n, n); err != nil {
			return // the client has left
		}
		if err := out.Flush(); err != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
	}
}

func answerSlowly(w http.ResponseWriter, r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-time.After(slowFor):
		writeJSON(w, http.StatusOK, map[string]float64{"took_seconds": slowFor.Seconds()})
	}
}
