-- name: InsertPlan :exec
INSERT INTO subscription_plans (id, name, display_name, description, tier, is_default, is_active, is_public, trial_days,
    features, rate_limit_multiplier, rate_limits, version, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 1, $13, $13);

-- name: UpdatePlan :exec
UPDATE subscription_plans SET display_name = $2, description = $3, tier = $4, is_default = $5, is_active = $6, is_public = $7,
    trial_days = $8, features = $9, rate_limit_multiplier = $10, rate_limits = $11, version = version + 1, updated_at = $12
WHERE id = $1;

-- name: ClearDefaultPlan :exec
UPDATE subscription_plans SET is_default = FALSE, version = version + 1, updated_at = $2 WHERE is_default AND name <> $1;

-- name: PutPlanQuota :exec
INSERT INTO plan_quotas (plan_id, metric, limit_value, period, exceeded_status) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (plan_id, metric) DO UPDATE SET limit_value = excluded.limit_value, period = excluded.period,
    exceeded_status = excluded.exceeded_status;

-- name: DeletePlanQuota :exec
DELETE FROM plan_quotas WHERE plan_id = $1 AND metric = $2;

-- name: InsertPlanPrice :exec
INSERT INTO plan_prices (id, plan_id, "interval", currency, unit_amount, per_seat, stripe_lookup_key, stripe_price_id, livemode, is_active)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, TRUE);

-- name: UpdatePlanPrice :exec
UPDATE plan_prices SET per_seat = $2, stripe_lookup_key = $3, stripe_price_id = $4, livemode = $5, is_active = TRUE WHERE id = $1;

-- name: DeactivatePlanPrice :exec
UPDATE plan_prices SET is_active = FALSE WHERE id = $1;
