// Package migrations holds the schema of Quotagate's own tables as goose
// migrations, one folder for each engine, the same numbers in both. It is data
// only: running them is left to package store. A migration that was shipped is
// never edited; what changes is a new number.
package migrations

import "embed"

// FS holds the folders postgres and sqlite.
//
//go:embed postgres/*.sql sqlite/*.sql
var FS embed.FS
