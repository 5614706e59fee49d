// Package memcounters counts in this process: the Caddy module
// quota.counters.memory. It is there so that one gateway is exact without any
// server: rate windows, quotas and the metering ledger live in memory, and each
// change is written to a log before the request is answered, so that a process
// that is killed loses nothing that it has said.
//
// The engine (everything but module.go and examine.go) knows no Caddy. Sharing counters
// between processes is left to the Redis engine; keeping usage for good is left
// to the records, to which the gate flushes this engine's ledger.
package memcounters
