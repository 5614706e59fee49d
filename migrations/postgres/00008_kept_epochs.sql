-- What a reaper must know of an epoch: which process it is one of, and whether
-- counters that outlive the process hold its totals too.

-- +goose Up
ALTER TABLE gateway_epochs
    ADD COLUMN process    TEXT,
    ADD COLUMN kept       BOOLEAN NOT NULL DEFAULT FALSE,
    -- When the counters forgot the totals of a kept epoch: all of them are here.
    ADD COLUMN dropped_at TIMESTAMPTZ;
CREATE INDEX gateway_epochs_kept ON gateway_epochs (closed_at) WHERE kept AND dropped_at IS NULL;

-- +goose Down
DROP INDEX gateway_epochs_kept;
ALTER TABLE gateway_epochs DROP COLUMN dropped_at, DROP COLUMN kept, DROP COLUMN process;
