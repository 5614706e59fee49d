-- name: AdvanceAuditHead :one
-- The row stays locked to the end of the transaction.
UPDATE audit_head SET seq = seq + 1 WHERE id = 1 RETURNING seq, hash;

-- name: SetAuditHead :exec
UPDATE audit_head SET hash = $1 WHERE id = 1;

-- name: AuditHead :one
SELECT seq, hash FROM audit_head WHERE id = 1;

-- name: AppendAudit :exec
INSERT INTO audit_events (seq, id, actor_type, actor_id, actor_label, impersonator_id, action, resource_type, resource_id,
    account_id, outcome, reason, changes, metadata, ip_address, user_agent, request_id, prev_hash, hash, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20);

-- name: AuditAfter :many
SELECT seq, id, actor_type, actor_id, actor_label, impersonator_id, action, resource_type, resource_id,
    account_id, outcome, reason, changes, metadata, ip_address, user_agent, request_id, prev_hash, hash, created_at
FROM audit_events WHERE seq > $1 ORDER BY seq LIMIT $2;

-- name: AuditAt :many
SELECT seq, id, actor_type, actor_id, actor_label, impersonator_id, action, resource_type, resource_id,
    account_id, outcome, reason, changes, metadata, ip_address, user_agent, request_id, prev_hash, hash, created_at
FROM audit_events WHERE seq = $1;

-- name: AuditCheckpoints :many
-- Newest first.
SELECT seq, resource_id, metadata FROM audit_events WHERE action = 'audit.checkpoint' ORDER BY seq DESC;

-- name: FirstAuditSince :one
-- The first event that is not older, 0 if all are.
SELECT CAST(COALESCE(MIN(seq), 0) AS BIGINT) AS seq FROM audit_events WHERE created_at >= $1;

-- name: FirstAudit :one
SELECT CAST(COALESCE(MIN(seq), 0) AS BIGINT) AS seq FROM audit_events;

-- name: CutAudit :execrows
DELETE FROM audit_events WHERE seq <= $1;
