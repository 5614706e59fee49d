-- name: ListPlans :many
SELECT id, name, display_name, description, tier, is_default, is_active, is_public, trial_days,
    features, rate_limit_multiplier, rate_limits, version, created_at, updated_at
FROM subscription_plans ORDER BY tier, name;

-- name: ListPlanQuotas :many
SELECT plan_id, metric, limit_value, period, exceeded_status FROM plan_quotas ORDER BY plan_id, metric;

-- name: ListPlanPrices :many
SELECT id, plan_id, "interval", currency, unit_amount, per_seat, stripe_lookup_key, stripe_price_id, livemode, is_active
FROM plan_prices ORDER BY plan_id, "interval", unit_amount, id;
