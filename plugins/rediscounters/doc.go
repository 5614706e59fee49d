// Package rediscounters provides the counters guest redis: it counts rate limits
// and quotas in Redis, exact over any number of gateways that share it.
//
// A request costs one round trip: one script looks at everything that it charges
// and takes all or nothing, on the server's clock. What the process has admitted
// it sums up itself, from the answers; Redis keeps the same totals for the case
// that the process dies. Nothing is sent twice: a call of which nobody knows
// whether it ran is settled by its number as soon as Redis answers again.
//
// Keys hold digests only, and a bucket of 0..1023 as a hash tag, so that what is
// charged to one account is in one slot of a Cluster.
package rediscounters
