-- name: CurrentSubscription :many
SELECT id, account_id, plan_id, plan_price_id, source, status, stripe_status, is_current, quantity, started_at, billing_anchor,
    trial_end, current_period_start, current_period_end, cancel_at_period_end, cancelled_at, ended_at, past_due_since,
    pending_plan_id, pending_effective_at, pending_period_end, stripe_subscription_id, granted_by, grant_reason, created_at, updated_at,
    granted_over
FROM subscriptions WHERE account_id = $1 AND is_current;
