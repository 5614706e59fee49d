// Package profile adds one member to a JSON answer of a backend that knows
// nothing of it: the caller's subscription to the profile. The document is
// spliced, never decoded and encoded again, so that the order of its members,
// integers beyond 2^53, escapes and white space arrive as they were sent. What
// the member holds, and which answers are meant, is left to the caller. It
// knows net/http but not Caddy.
package profile
