-- name: GetControl :many
SELECT user_id, state, previous_status, reason, until, tokens_valid_after, updated_by, updated_at
FROM user_controls WHERE user_id = $1;

-- name: PutControlState :exec
INSERT INTO user_controls (user_id, state, reason, until, updated_by, updated_at) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (user_id) DO UPDATE SET state = excluded.state, reason = excluded.reason, until = excluded.until,
    updated_by = excluded.updated_by, updated_at = excluded.updated_at;

-- name: PutTokensValidAfter :exec
INSERT INTO user_controls (user_id, state, tokens_valid_after, updated_by, updated_at) VALUES ($1, 'active', $2, $3, $2)
ON CONFLICT (user_id) DO UPDATE SET
    tokens_valid_after = CASE WHEN user_controls.tokens_valid_after > excluded.tokens_valid_after
        THEN user_controls.tokens_valid_after ELSE excluded.tokens_valid_after END,
    updated_by = excluded.updated_by, updated_at = excluded.updated_at;

-- name: RevokeSession :exec
INSERT INTO revoked_sessions (session_id, user_id, revoked_at) VALUES ($1, $2, $3) ON CONFLICT (session_id) DO NOTHING;

-- name: ListRevokedSessions :many
SELECT session_id FROM revoked_sessions WHERE user_id = $1 ORDER BY session_id;

-- name: GetAdmin :many
SELECT user_id, role, granted_by, granted_at FROM admins WHERE user_id = $1;

-- name: ListAdmins :many
SELECT user_id, role, granted_by, granted_at FROM admins ORDER BY user_id;

-- name: GrantAdmin :execrows
INSERT INTO admins (user_id, role, granted_by, granted_at) VALUES ($1, 'superadmin', $2, $3) ON CONFLICT (user_id) DO NOTHING;

-- name: RevokeAdmin :execrows
DELETE FROM admins WHERE user_id = $1;
