// Package answer renders everything that a client reads from the gateway
// itself: the rate limit fields, the bodies of denials, and the CORS headers
// without which a browser hides both. It is pure (standard library and quota
// only), so that every byte of an answer can be tested without a server. What
// is decided, and when an answer is written, is left to the packages above.
package answer
