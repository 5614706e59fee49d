-- name: InsertQuotaOverride :exec
INSERT INTO quota_overrides (id, account_id, metric, mode, limit_value, starts_at, expires_at, reason, created_by)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: InsertRateOverride :exec
INSERT INTO rate_limit_overrides (id, account_id, scope, requests, window_seconds, starts_at, expires_at, reason, created_by)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: RevokeQuotaOverride :execrows
UPDATE quota_overrides SET revoked_at = $3 WHERE id = $1 AND account_id = $2 AND revoked_at IS NULL;

-- name: RevokeRateOverride :execrows
UPDATE rate_limit_overrides SET revoked_at = $3 WHERE id = $1 AND account_id = $2 AND revoked_at IS NULL;

-- name: CountOverrides :one
-- Those that are not over.
SELECT CAST(
    (SELECT COUNT(*) FROM quota_overrides q WHERE q.account_id = $1 AND q.revoked_at IS NULL AND (q.expires_at IS NULL OR q.expires_at > $2))
    + (SELECT COUNT(*) FROM rate_limit_overrides r WHERE r.account_id = $1 AND r.revoked_at IS NULL AND (r.expires_at IS NULL OR r.expires_at > $2))
    AS BIGINT) AS overrides;
