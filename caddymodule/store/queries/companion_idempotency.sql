-- name: PruneOutbox :execrows
DELETE FROM outbox_events WHERE created_at < $1;

-- name: TakeIdempotencyKey :execrows
-- Takes a key that nobody has used since $7, or one whose user has died before he
-- had done anything.
INSERT INTO idempotency_keys (owner, idempotency_key, request_hash, holder, locked_until, created_at)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (owner, idempotency_key) DO UPDATE SET request_hash = excluded.request_hash, holder = excluded.holder,
    locked_until = excluded.locked_until, created_at = excluded.created_at, committed_at = NULL, status = 0, headers = '{}', body = ''
WHERE idempotency_keys.created_at < $7
    OR (idempotency_keys.status = 0 AND idempotency_keys.committed_at IS NULL AND idempotency_keys.locked_until <= excluded.created_at
        AND idempotency_keys.request_hash = excluded.request_hash);

-- name: GetIdempotencyKey :many
SELECT request_hash, holder, locked_until, committed_at, status, headers, body FROM idempotency_keys
WHERE owner = $1 AND idempotency_key = $2;

-- name: CommitIdempotencyKey :execrows
UPDATE idempotency_keys SET committed_at = $4 WHERE owner = $1 AND idempotency_key = $2 AND holder = $3;

-- name: AnswerIdempotencyKey :execrows
UPDATE idempotency_keys SET status = $4, headers = $5, body = $6 WHERE owner = $1 AND idempotency_key = $2 AND holder = $3;

-- name: ReleaseIdempotencyKey :exec
DELETE FROM idempotency_keys WHERE owner = $1 AND idempotency_key = $2 AND holder = $3 AND committed_at IS NULL;

-- name: PruneIdempotencyKeys :execrows
DELETE FROM idempotency_keys WHERE created_at < $1;
