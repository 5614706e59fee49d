-- name: LockAccount :exec
-- What changes an account's subscription queues here, on either engine.
INSERT INTO accounts (id, kind, entitlement_version, first_seen_at, last_seen_at) VALUES ($1, $2, 1, $3, $3)
ON CONFLICT (id) DO UPDATE SET entitlement_version = accounts.entitlement_version + 1;

-- name: InsertSubscription :exec
INSERT INTO subscriptions (id, account_id, plan_id, source, status, is_current, started_at, billing_anchor, trial_end,
    current_period_start, current_period_end, granted_by, grant_reason, granted_over, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, TRUE, $6, $7, $8, $6, $9, $10, $11, $12, $6, $6);

-- name: ReplaceSubscription :exec
UPDATE subscriptions SET is_current = FALSE, status = $2, cancelled_at = COALESCE(cancelled_at, $3), ended_at = $3, updated_at = $3
WHERE id = $1;
