-- name: GetControl :many
SELECT user_id, state, previous_status, reason, until, tokens_valid_after, updated_by, updated_at
FROM user_controls WHERE user_id = $1;

-- name: ListRevokedSessions :many
SELECT session_id FROM revoked_sessions WHERE user_id = $1 ORDER BY session_id;
