-- name: GetAdmin :many
SELECT user_id, role, granted_by, granted_at FROM admins WHERE user_id = $1;

-- name: ListAdmins :many
SELECT user_id, role, granted_by, granted_at FROM admins ORDER BY user_id;

-- name: GrantAdmin :execrows
INSERT INTO admins (user_id, role, granted_by, granted_at) VALUES ($1, 'superadmin', $2, $3) ON CONFLICT (user_id) DO NOTHING;

-- name: RevokeAdmin :execrows
DELETE FROM admins WHERE user_id = $1;

-- name: ActiveAdmins :many
-- Those who can log in at this moment ($1).
SELECT a.user_id FROM admins a LEFT JOIN user_controls c ON c.user_id = a.user_id
WHERE c.user_id IS NULL OR c.state = 'active' OR (c.state = 'suspended' AND c.until <= $1)
ORDER BY a.user_id;

-- name: RevokeAllAdmins :many
DELETE FROM admins RETURNING user_id;
