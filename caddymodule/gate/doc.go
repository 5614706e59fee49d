// Package gate is admission: it identifies the caller, looks up what it may do,
// reserves all charges of a request in one step, and settles them afterwards.
// It speaks net/http, and knows neither Caddy nor SQL: verifiers, counters and
// records come in as the interfaces of contract.go.
//
// A Runtime (caches, recorder, watcher) outlives a config; a Gate belongs to one.
package gate
