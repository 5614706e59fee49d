-- name: KeptEpochs :many
-- Closed epochs whose totals the counters hold too, the longest closed first.
SELECT epoch, closed_at FROM gateway_epochs
WHERE kept AND dropped_at IS NULL AND closed_at IS NOT NULL ORDER BY closed_at, epoch LIMIT $1;

-- name: DropEpoch :execrows
UPDATE gateway_epochs SET dropped_at = $2 WHERE epoch = $1 AND closed_at IS NOT NULL AND dropped_at IS NULL;

-- name: UndropEpoch :execrows
-- Counters hold it, whatever was noted before.
UPDATE gateway_epochs SET kept = TRUE, dropped_at = NULL
WHERE epoch = $1 AND closed_at IS NOT NULL AND compacted_at IS NULL AND (dropped_at IS NOT NULL OR NOT kept);

-- name: LivingProcesses :one
-- Those that judge requests name themselves.
SELECT COUNT(DISTINCT process) AS processes FROM gateway_epochs WHERE closed_at IS NULL AND last_seen_at >= $1;
