// Package billing lets accounts pay for plans. A payment provider keeps the
// truth of what was bought; its webhooks only say that something changed for a
// customer. What changed is then read from the provider and written into the
// records as a whole, so that events may come twice, late, in any order or never:
// the state that follows is the same.
//
// The package knows no provider. One is a guest, a Caddy module in the namespace
// quota_companion.billing: plugins/stripebilling for Stripe, and the fake, which
// is Stripe's API played in this process.
package billing
