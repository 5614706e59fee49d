package store

// Companion is the store with what only the companion does: administration, the
// audit log, plans and subscriptions, billing, and what accounts and charts show.
//
// A gateway links every exported method of *Store, called or not, for some code of
// Caddy's finds methods by name at run time. These are of a type that no gateway
// names, and in files of their own, companion*.go.
type Companion struct{ *Store }

// ForCompanion is s with what only the companion does.
func ForCompanion(s *Store) *Companion { return &Companion{s} }
