-- name: ListQuotaOverrides :many
SELECT id, account_id, metric, mode, limit_value, starts_at, expires_at, reason, created_by, revoked_at
FROM quota_overrides WHERE account_id = $1 AND revoked_at IS NULL ORDER BY starts_at, id;

-- name: ListRateOverrides :many
SELECT id, account_id, scope, requests, window_seconds, starts_at, expires_at, reason, created_by, revoked_at
FROM rate_limit_overrides WHERE account_id = $1 AND revoked_at IS NULL ORDER BY starts_at, id;
