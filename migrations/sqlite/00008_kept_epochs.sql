-- What a reaper must know of an epoch: which process it is one of, and whether
-- counters that outlive the process hold its totals too.

-- +goose Up
ALTER TABLE gateway_epochs ADD COLUMN process TEXT;
ALTER TABLE gateway_epochs ADD COLUMN kept INTEGER NOT NULL DEFAULT FALSE CHECK (kept IN (0, 1));
-- When the counters forgot the totals of a kept epoch: all of them are here.
ALTER TABLE gateway_epochs ADD COLUMN dropped_at TEXT CHECK (dropped_at IS NULL OR julianday(dropped_at) IS NOT NULL);
CREATE INDEX gateway_epochs_kept ON gateway_epochs (closed_at) WHERE kept AND dropped_at IS NULL;

-- +goose Down
DROP INDEX gateway_epochs_kept;
ALTER TABLE gateway_epochs DROP COLUMN dropped_at;
ALTER TABLE gateway_epochs DROP COLUMN kept;
ALTER TABLE gateway_epochs DROP COLUMN process;
