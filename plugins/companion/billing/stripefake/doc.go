// Package stripefake is a payment provider that speaks Stripe's REST API and
// keeps its books: what is created can be read, listed, changed and paid, time
// can be moved, and what happens on the way is told in signed events.
//
// It exists because a mock that answers samples cannot show a purchase. Here a
// session that was paid makes a subscription, which renews, fails, recovers and
// ends as the API's reference says, so that a client can be tested against whole
// lives of subscriptions, and a gateway can be shown without an account.
//
// The fake is strict rather than complete: a parameter or an address that it does
// not act on is refused, never ignored. Money moves nowhere; card numbers are
// Stripe's published test numbers, of which only the last four digits are kept.
//
// The package knows no Caddy and no client library. It speaks API version
// 2026-08-26.dahlia.
package stripefake
