-- The roadmap's tables, read-only. Amounts that the roadmap counts in whole
-- megabytes and minutes: limits are floored, what was used is rounded up.

-- +goose Up
CREATE VIEW plan_catalogue AS
SELECT p.id, p.name, p.display_name, p.description,
    COALESCE(price.unit_amount, 0) AS price_cents,
    CASE price."interval" WHEN 'month' THEN 'monthly' WHEN 'year' THEN 'yearly' END AS billing_period,
    p.features, p.rate_limit_multiplier, p.rate_limits,
    (SELECT q.limit_value FROM plan_quotas q WHERE q.plan_id = p.id AND q.metric = 'jobs' AND q.period = 'month') AS max_jobs_per_month,
    (SELECT q.limit_value / 1048576 FROM plan_quotas q WHERE q.plan_id = p.id AND q.metric = 'storage_bytes') AS max_storage_mb,
    (SELECT q.limit_value FROM plan_quotas q WHERE q.plan_id = p.id AND q.metric = 'api_calls' AND q.period = 'day') AS max_api_calls_per_day,
    p.is_active, p.created_at, p.updated_at
FROM subscription_plans p
LEFT JOIN plan_prices price ON price.id = (
    SELECT c.id FROM plan_prices c WHERE c.plan_id = p.id AND c.is_active
    ORDER BY c."interval", c.unit_amount, c.id LIMIT 1);

CREATE VIEW user_subscriptions AS
SELECT s.id, s.account_id AS user_id, s.plan_id, s.status, s.started_at,
    CASE
        WHEN s.ended_at IS NOT NULL THEN s.ended_at
        WHEN s.status = 'trial' THEN s.trial_end
        WHEN s.cancel_at_period_end OR s.source <> 'stripe' THEN s.current_period_end
    END AS expires_at,
    s.cancelled_at, s.current_period_start, s.current_period_end,
    s.stripe_subscription_id, a.stripe_customer_id, s.created_at, s.updated_at
FROM subscriptions s
LEFT JOIN accounts a ON a.id = s.account_id
WHERE COALESCE(a.kind, 'user') = 'user';

CREATE VIEW user_usage AS
SELECT t.account_id || ':' || strftime('%Y-%m', t.period_start) AS id,
    t.account_id AS user_id, t.period_start, MAX(t.period_end) AS period_end,
    CAST(SUM(CASE WHEN t.metric = 'api_calls' THEN t.spent - t.refunded ELSE 0 END) AS INTEGER) AS api_calls,
    CAST(SUM(CASE WHEN t.metric = 'jobs' THEN t.spent - t.refunded ELSE 0 END) AS INTEGER) AS jobs_created,
    CAST((MAX(0, COALESCE((SELECT l.value - l.counted FROM usage_levels l
            WHERE l.account_id = t.account_id AND l.metric = 'storage_bytes'), 0)
        + COALESCE((SELECT CAST(SUM(x.spent - x.refunded) AS INTEGER) FROM usage_totals x
            WHERE x.account_id = t.account_id AND x.metric = 'storage_bytes' AND x.period = 'none'), 0)) + 1048575) / 1048576 AS INTEGER) AS storage_used_mb,
    (CAST(SUM(CASE WHEN t.metric = 'compute_seconds' THEN t.spent - t.refunded ELSE 0 END) AS INTEGER) + 59) / 60 AS compute_minutes,
    t.period_start AS created_at, MAX(e.last_seen_at) AS updated_at
FROM usage_totals t
LEFT JOIN accounts a ON a.id = t.account_id
LEFT JOIN gateway_epochs e ON e.epoch = t.epoch
WHERE t.period = 'month' AND COALESCE(a.kind, 'user') = 'user'
GROUP BY t.account_id, t.period_start;

-- +goose Down
DROP VIEW user_usage;
DROP VIEW user_subscriptions;
DROP VIEW plan_catalogue;
