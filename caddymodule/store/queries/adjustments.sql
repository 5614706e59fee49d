-- name: AddAdjustment :exec
-- The epoch 'adjusted' is no process's: what admins add and take away, each only rising.
INSERT INTO usage_totals (epoch, account_id, metric, period, period_start, period_end, spent, refunded)
VALUES ('adjusted', $1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (epoch, account_id, metric, period, period_start) DO UPDATE SET
    spent = usage_totals.spent + excluded.spent, refunded = usage_totals.refunded + excluded.refunded;

-- name: GetLevel :many
SELECT value, measured_at FROM usage_levels WHERE account_id = $1 AND metric = $2;
