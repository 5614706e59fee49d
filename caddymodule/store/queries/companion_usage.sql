-- name: AddAdjustment :exec
-- The epoch 'adjusted' is no process's: what admins add and take away, each only rising.
INSERT INTO usage_totals (epoch, account_id, metric, period, period_start, period_end, spent, refunded)
VALUES ('adjusted', $1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (epoch, account_id, metric, period, period_start) DO UPDATE SET
    spent = usage_totals.spent + excluded.spent, refunded = usage_totals.refunded + excluded.refunded;

-- name: PutLevel :exec
INSERT INTO usage_levels (account_id, metric, value, measured_at) VALUES ($1, $2, $3, $4)
ON CONFLICT (account_id, metric) DO UPDATE SET value = excluded.value, measured_at = excluded.measured_at;

-- name: LatestFlushes :many
-- Of processes that judge requests and live, the number of the latest flush that ended a round.
SELECT CAST(process AS TEXT) AS process, CAST(MAX(flush_seq) AS BIGINT) AS flush_seq FROM gateway_epochs
WHERE process IS NOT NULL AND process <> $2 AND closed_at IS NULL AND last_seen_at >= $1 GROUP BY process;
