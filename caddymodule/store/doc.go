// Package store is the system of record: plans, subscriptions, overrides,
// usage and what admins decided about users, over database/sql. One text of
// queries serves SQLite and Postgres (queries/*.sql, generated into sqlgen), so
// there is one implementation and no interface of its own; it provides what
// package gate asks for (Loader, Bus.Latest, UsageStore).
//
// Store is what gateways use. Companion adds what only the companion uses:
// administration, accounts, the audit log and billing. A gateway links every
// exported method of *Store, called or not, and nothing of Companion; what is
// Companion's is in the files companion*, its queries too.
//
// Everything that reads more than one row does so in one snapshot, everything
// that writes does so in one transaction. Times are judged when they are read:
// nothing has to run for a trial or a paid period to end. A row that cannot be
// enforced as written is refused with a *RowError, never guessed at.
//
// # The host's tables
//
// The backends' own tables of users and sessions are reached by SQL that is made
// from HostOptions and the catalogue: no object of ours depends on them, and the
// host may alter or drop them at any time. Ids are compared in the host's own
// type, and a text that is none of its values finds nobody; a column that is
// missing is null.
//
//   - Entitlement adds the host's status of a user (see KeptOut) and the sessions
//     that the host has revoked. Where the host's rows cannot be read, HostFault
//     says why, and ours stand alone.
//   - Companion's ListUsers, User and UserSessions are the directory:
//     the host's users, or, without such a table, the callers in accounts, each
//     with what we know of them. Host says which it is.
//   - Companion's PatchUser, RemoveUser, RestoreUser and LogOutUser write the
//     host's rows beside ours and the audit event. They use writeHost, which is
//     write with a hostTx beside the queries: its setStatus, setEmail and
//     revokeSessions each run in a savepoint, and what the host refuses is a
//     HostWrite that says so, never an error that rolls ours back.
//
// It knows neither Caddy nor HTTP. Opening a database, watching it for changes
// and running Maintain are left to the records guests.
package store
