-- name: LatestChange :one
SELECT CAST(COALESCE(MAX(seq), 0) AS BIGINT) AS seq FROM changes;

-- name: OldestChange :one
SELECT CAST(COALESCE(MIN(seq), 0) AS BIGINT) AS seq FROM changes;

-- name: ChangesAfter :many
SELECT seq, subject FROM changes WHERE seq > $1 ORDER BY seq LIMIT $2;

-- name: PruneChanges :execrows
-- The newest stays ($2): an entitlement's version is read from it.
DELETE FROM changes WHERE created_at < $1 AND seq < $2;

-- name: TakeLease :execrows
INSERT INTO leases (name, holder, expires_at) VALUES ($1, $2, $4)
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at
WHERE leases.holder = excluded.holder OR leases.expires_at <= $3;

-- name: ServerTime :one
-- When the transaction began, by the clock that all gateways share.
SELECT CAST(CURRENT_TIMESTAMP AS TIMESTAMPTZ) AS now;
