-- The plans of a fresh installation. Nothing here overwrites an operator's edit,
-- and going down leaves the plans to the migration that drops their tables.

-- +goose Up
INSERT INTO subscription_plans (id, name, display_name, description, tier, is_default, features, rate_limit_multiplier, rate_limits)
VALUES ('01890a5d-ac96-774b-bcce-b302099a8001', 'free', 'Free Plan', 'For trying things out.', 0, TRUE,
    '{"api_access":true,"custom_models":false,"priority_support":false}',
    1, '{"api":{"requests":60,"window":60},"jobs":{"requests":10,"window":3600},"login":{"requests":10,"window":3600},"register":{"requests":5,"window":3600}}')
ON CONFLICT DO NOTHING;
INSERT INTO plan_quotas (plan_id, metric, limit_value, period, exceeded_status)
SELECT id, 'api_calls', 1000, 'day', 429 FROM subscription_plans WHERE id = '01890a5d-ac96-774b-bcce-b302099a8001'
ON CONFLICT DO NOTHING;
INSERT INTO plan_quotas (plan_id, metric, limit_value, period, exceeded_status)
SELECT id, 'jobs', 10, 'month', 402 FROM subscription_plans WHERE id = '01890a5d-ac96-774b-bcce-b302099a8001'
ON CONFLICT DO NOTHING;
INSERT INTO plan_quotas (plan_id, metric, limit_value, period, exceeded_status)
SELECT id, 'storage_bytes', 1073741824, 'none', 402 FROM subscription_plans WHERE id = '01890a5d-ac96-774b-bcce-b302099a8001'
ON CONFLICT DO NOTHING;
INSERT INTO plan_quotas (plan_id, metric, limit_value, period, exceeded_status)
SELECT id, 'compute_seconds', 3600, 'month', 402 FROM subscription_plans WHERE id = '01890a5d-ac96-774b-bcce-b302099a8001'
ON CONFLICT DO NOTHING;

INSERT INTO subscription_plans (id, name, display_name, description, tier, is_default, features, rate_limit_multiplier, rate_limits)
VALUES ('01890a5d-ac96-774b-bcce-b302099a8002', 'pro', 'Pro Plan', 'For people who work with it every day.', 10, FALSE,
    '{"advanced_analytics":true,"api_access":true,"custom_models":true,"priority_support":true}',
    5, '{"api":{"requests":300,"window":60},"jobs":{"requests":50,"window":3600},"login":{"requests":50,"window":3600},"register":{"requests":25,"window":3600}}')
ON CONFLICT DO NOTHING;
INSERT INTO plan_quotas (plan_id, metric, limit_value, period, exceeded_status)
SELECT id, 'api_calls', 50000, 'day', 429 FROM subscription_plans WHERE id = '01890a5d-ac96-774b-bcce-b302099a8002'
ON CONFLICT DO NOTHING;
INSERT INTO plan_quotas (plan_id, metric, limit_value, period, exceeded_status)
SELECT id, 'jobs', 500, 'month', 402 FROM subscription_plans WHERE id = '01890a5d-ac96-774b-bcce-b302099a8002'
ON CONFLICT DO NOTHING;
INSERT INTO plan_quotas (plan_id, metric, limit_value, period, exceeded_status)
SELECT id, 'storage_bytes', 53687091200, 'none', 402 FROM subscription_plans WHERE id = '01890a5d-ac96-774b-bcce-b302099a8002'
ON CONFLICT DO NOTHING;
INSERT INTO plan_quotas (plan_id, metric, limit_value, period, exceeded_status)
SELECT id, 'compute_seconds', 180000, 'month', 402 FROM subscription_plans WHERE id = '01890a5d-ac96-774b-bcce-b302099a8002'
ON CONFLICT DO NOTHING;
INSERT INTO plan_prices (id, plan_id, "interval", currency, unit_amount, stripe_lookup_key)
SELECT '01890a5d-ac96-774b-bcce-b302099a8121', id, 'month', 'usd', 1999, 'pro_monthly' FROM subscription_plans WHERE id = '01890a5d-ac96-774b-bcce-b302099a8002'
ON CONFLICT DO NOTHING;
INSERT INTO plan_prices (id, plan_id, "interval", currency, unit_amount, stripe_lookup_key)
SELECT '01890a5d-ac96-774b-bcce-b302099a8122', id, 'year', 'usd', 19990, 'pro_yearly' FROM subscription_plans WHERE id = '01890a5d-ac96-774b-bcce-b302099a8002'
ON CONFLICT DO NOTHING;

INSERT INTO subscription_plans (id, name, display_name, description, tier, is_default, features, rate_limit_multiplier, rate_limits)
VALUES ('01890a5d-ac96-774b-bcce-b302099a8003', 'enterprise', 'Enterprise Plan', 'For teams and heavy use.', 20, FALSE,
    '{"advanced_analytics":true,"api_access":true,"custom_models":true,"dedicated_support":true,"priority_support":true}',
    20, '{"api":{"requests":1200,"window":60},"jobs":{"requests":200,"window":3600},"login":{"requests":200,"window":3600},"register":{"requests":100,"window":3600}}')
ON CONFLICT DO NOTHING;
INSERT INTO plan_quotas (plan_id, metric, limit_value, period, exceeded_status)
SELECT id, 'api_calls', NULL, 'day', 429 FROM subscription_plans WHERE id = '01890a5d-ac96-774b-bcce-b302099a8003'
ON CONFLICT DO NOTHING;
INSERT INTO plan_quotas (plan_id, metric, limit_value, period, exceeded_status)
SELECT id, 'jobs', NULL, 'month', 402 FROM subscription_plans WHERE id = '01890a5d-ac96-774b-bcce-b302099a8003'
ON CONFLICT DO NOTHING;
INSERT INTO plan_quotas (plan_id, metric, limit_value, period, exceeded_status)
SELECT id, 'storage_bytes', 1099511627776, 'none', 402 FROM subscription_plans WHERE id = '01890a5d-ac96-774b-bcce-b302099a8003'
ON CONFLICT DO NOTHING;
INSERT INTO plan_quotas (plan_id, metric, limit_value, period, exceeded_status)
SELECT id, 'compute_seconds', NULL, 'month', 402 FROM subscription_plans WHERE id = '01890a5d-ac96-774b-bcce-b302099a8003'
ON CONFLICT DO NOTHING;
INSERT INTO plan_prices (id, plan_id, "interval", currency, unit_amount, stripe_lookup_key)
SELECT '01890a5d-ac96-774b-bcce-b302099a8131', id, 'month', 'usd', 9999, 'enterprise_monthly' FROM subscription_plans WHERE id = '01890a5d-ac96-774b-bcce-b302099a8003'
ON CONFLICT DO NOTHING;
INSERT INTO plan_prices (id, plan_id, "interval", currency, unit_amount, stripe_lookup_key)
SELECT '01890a5d-ac96-774b-bcce-b302099a8132', id, 'year', 'usd', 99990, 'enterprise_yearly' FROM subscription_plans WHERE id = '01890a5d-ac96-774b-bcce-b302099a8003'
ON CONFLICT DO NOTHING;

-- +goose Down
SELECT 1;
