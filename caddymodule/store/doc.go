// Package store is the system of record: plans, subscriptions, overrides,
// usage and what admins decided about users, over database/sql. One text of
// queries serves SQLite and Postgres (queries/*.sql, generated into sqlgen), so
// there is one implementation and no interface of its own; it provides what
// package gate asks for (Loader, Bus.Latest, UsageStore).
//
// Everything that reads more than one row does so in one snapshot, everything
// that writes does so in one transaction. Times are judged when they are read:
// nothing has to run for a trial or a paid period to end. A row that cannot be
// enforced as written is refused with a *RowError, never guessed at.
//
// It knows neither Caddy nor HTTP. Opening a database, watching it for changes
// and running Maintain are left to the records guests.
package store
