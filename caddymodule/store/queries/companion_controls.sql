-- name: PutTokensValidAfter :exec
INSERT INTO user_controls (user_id, state, tokens_valid_after, updated_by, updated_at) VALUES ($1, 'active', $2, $3, $2)
ON CONFLICT (user_id) DO UPDATE SET
    tokens_valid_after = CASE WHEN user_controls.tokens_valid_after > excluded.tokens_valid_after
        THEN user_controls.tokens_valid_after ELSE excluded.tokens_valid_after END,
    updated_by = excluded.updated_by, updated_at = excluded.updated_at;

-- name: GetWholeControl :many
SELECT user_id, state, previous_status, reason, until, tokens_valid_after, original_email, purge_after, updated_by, updated_at
FROM user_controls WHERE user_id = $1;

-- name: PutControl :exec
INSERT INTO user_controls (user_id, state, previous_status, reason, until, original_email, updated_by, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (user_id) DO UPDATE SET state = excluded.state, previous_status = excluded.previous_status, reason = excluded.reason,
    until = excluded.until, original_email = excluded.original_email, updated_by = excluded.updated_by, updated_at = excluded.updated_at;

-- name: TouchControl :exec
-- Changes nothing, and so tells every gateway to look again.
INSERT INTO user_controls (user_id, state, updated_by, updated_at) VALUES ($1, 'active', $2, $3)
ON CONFLICT (user_id) DO UPDATE SET user_id = excluded.user_id;

-- name: SetAccountEmail :exec
UPDATE accounts SET email = $2 WHERE id = $1;
