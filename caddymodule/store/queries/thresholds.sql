-- name: RaiseThreshold :many
INSERT INTO quota_notifications (account_id, metric, period_start, threshold, limit_value, created_at)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (account_id, metric, period_start, threshold, limit_value) DO NOTHING
RETURNING account_id, metric, period_start, threshold, limit_value;
