-- name: CountStandings :many
-- Current subscriptions, grouped by everything that decides what they mean now:
-- of each moment whether it is unset (0), past (1) or to come (2).
SELECT s.plan_id, s.pending_plan_id, s.plan_price_id, s.source, s.status, s.cancel_at_period_end,
    CAST(CASE WHEN s.cancelled_at IS NULL THEN 0 ELSE 1 END AS BIGINT) AS cancelled,
    CAST(CASE WHEN s.ended_at IS NULL THEN 0 WHEN s.ended_at <= sqlc.arg(now) THEN 1 ELSE 2 END AS BIGINT) AS ended,
    CAST(CASE WHEN s.trial_end IS NULL THEN 0 WHEN s.trial_end <= sqlc.arg(now) THEN 1 ELSE 2 END AS BIGINT) AS trial,
    CAST(CASE WHEN s.past_due_since IS NULL THEN 0 WHEN s.past_due_since <= sqlc.arg(grace_began) THEN 1 ELSE 2 END AS BIGINT) AS grace,
    CAST(CASE WHEN s.current_period_end IS NULL THEN 0 WHEN s.current_period_end <= sqlc.arg(now) THEN 1 ELSE 2 END AS BIGINT) AS period,
    CAST(CASE WHEN s.pending_effective_at IS NULL THEN 0 WHEN s.pending_effective_at <= sqlc.arg(now) THEN 1 ELSE 2 END AS BIGINT) AS pending,
    CAST(CASE WHEN s.pending_period_end IS NULL THEN 0 WHEN s.pending_period_end <= sqlc.arg(now) THEN 1 ELSE 2 END AS BIGINT) AS pending_period,
    COUNT(*) AS subscriptions, CAST(SUM(s.quantity) AS BIGINT) AS seats
FROM subscriptions s
WHERE s.is_current
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13;
