-- name: LockName :exec
-- What must not run twice at once queues at this row to the end of its transaction.
INSERT INTO leases (name, holder, expires_at) VALUES ($1, '', $2)
ON CONFLICT (name) DO UPDATE SET expires_at = excluded.expires_at;

-- name: ReleaseLease :exec
DELETE FROM leases WHERE name = $1 AND holder = $2;
