-- The words admitted and shadow_denied are package quota's: what passed.

-- name: AccountHours :many
SELECT bucket, CAST(SUM(requests) AS BIGINT) AS requests,
    CAST(SUM(CASE WHEN decision IN ('admitted', 'shadow_denied') THEN cost ELSE 0 END) AS BIGINT) AS used,
    CAST(SUM(CASE WHEN decision IN ('admitted', 'shadow_denied') THEN 0 ELSE requests END) AS BIGINT) AS blocked
FROM usage_hourly WHERE account_id = sqlc.arg(account_id) AND scope = sqlc.arg(scope)
    AND bucket >= sqlc.arg(since) AND bucket < sqlc.arg(until)
GROUP BY bucket ORDER BY bucket;

-- name: AccountDays :many
SELECT bucket, CAST(SUM(requests) AS BIGINT) AS requests,
    CAST(SUM(CASE WHEN decision IN ('admitted', 'shadow_denied') THEN cost ELSE 0 END) AS BIGINT) AS used,
    CAST(SUM(CASE WHEN decision IN ('admitted', 'shadow_denied') THEN 0 ELSE requests END) AS BIGINT) AS blocked
FROM usage_daily WHERE account_id = sqlc.arg(account_id) AND scope = sqlc.arg(scope)
    AND bucket >= sqlc.arg(since) AND bucket < sqlc.arg(until)
GROUP BY bucket ORDER BY bucket;

-- name: AllHours :many
SELECT bucket, CAST(SUM(requests) AS BIGINT) AS requests,
    CAST(SUM(CASE WHEN decision IN ('admitted', 'shadow_denied') THEN cost ELSE 0 END) AS BIGINT) AS used,
    CAST(SUM(CASE WHEN decision IN ('admitted', 'shadow_denied') THEN 0 ELSE requests END) AS BIGINT) AS blocked
FROM usage_hourly WHERE scope = sqlc.arg(scope) AND bucket >= sqlc.arg(since) AND bucket < sqlc.arg(until)
GROUP BY bucket ORDER BY bucket;

-- name: AllDays :many
SELECT bucket, CAST(SUM(requests) AS BIGINT) AS requests,
    CAST(SUM(CASE WHEN decision IN ('admitted', 'shadow_denied') THEN cost ELSE 0 END) AS BIGINT) AS used,
    CAST(SUM(CASE WHEN decision IN ('admitted', 'shadow_denied') THEN 0 ELSE requests END) AS BIGINT) AS blocked
FROM usage_daily WHERE scope = sqlc.arg(scope) AND bucket >= sqlc.arg(since) AND bucket < sqlc.arg(until)
GROUP BY bucket ORDER BY bucket;

-- name: TopAccounts :many
SELECT account_id, CAST(SUM(requests) AS BIGINT) AS requests,
    CAST(SUM(CASE WHEN decision IN ('admitted', 'shadow_denied') THEN cost ELSE 0 END) AS BIGINT) AS used,
    CAST(SUM(CASE WHEN decision IN ('admitted', 'shadow_denied') THEN 0 ELSE requests END) AS BIGINT) AS blocked
FROM usage_daily
WHERE scope = sqlc.arg(scope) AND bucket >= sqlc.arg(since) AND bucket < sqlc.arg(until) AND account_id <> ''
GROUP BY account_id
HAVING SUM(CASE
    WHEN CAST(sqlc.arg(rank_by) AS TEXT) = 'used' AND decision IN ('admitted', 'shadow_denied') THEN cost
    WHEN CAST(sqlc.arg(rank_by) AS TEXT) = 'blocked' AND decision NOT IN ('admitted', 'shadow_denied') THEN requests
    WHEN CAST(sqlc.arg(rank_by) AS TEXT) = 'requests' THEN requests ELSE 0 END) > 0
ORDER BY SUM(CASE
    WHEN CAST(sqlc.arg(rank_by) AS TEXT) = 'used' AND decision IN ('admitted', 'shadow_denied') THEN cost
    WHEN CAST(sqlc.arg(rank_by) AS TEXT) = 'blocked' AND decision NOT IN ('admitted', 'shadow_denied') THEN requests
    WHEN CAST(sqlc.arg(rank_by) AS TEXT) = 'requests' THEN requests ELSE 0 END) DESC, account_id
LIMIT sqlc.arg(max_rows);

-- name: GetAccount :many
SELECT id, kind, email, first_seen_at, last_seen_at FROM accounts WHERE id = $1;

-- name: HourlyRows :many
SELECT bucket, account_id, scope, decision, status_class, requests, cost FROM usage_hourly
WHERE bucket >= sqlc.arg(since) AND bucket < sqlc.arg(until)
    AND (bucket, account_id, scope, decision, status_class)
        > (sqlc.arg(after_bucket), CAST(sqlc.arg(after_account) AS TEXT), CAST(sqlc.arg(after_scope) AS TEXT),
            CAST(sqlc.arg(after_decision) AS TEXT), CAST(sqlc.arg(after_class) AS BIGINT))
    AND (CAST(sqlc.arg(only_scope) AS TEXT) = '' OR scope = CAST(sqlc.arg(only_scope) AS TEXT))
    AND (CAST(sqlc.arg(only_account) AS TEXT) = '' OR account_id = CAST(sqlc.arg(only_account) AS TEXT))
ORDER BY bucket, account_id, scope, decision, status_class LIMIT sqlc.arg(max_rows);

-- name: DailyRows :many
SELECT bucket, account_id, scope, decision, status_class, requests, cost FROM usage_daily
WHERE bucket >= sqlc.arg(since) AND bucket < sqlc.arg(until)
    AND (bucket, account_id, scope, decision, status_class)
        > (sqlc.arg(after_bucket), CAST(sqlc.arg(after_account) AS TEXT), CAST(sqlc.arg(after_scope) AS TEXT),
            CAST(sqlc.arg(after_decision) AS TEXT), CAST(sqlc.arg(after_class) AS BIGINT))
    AND (CAST(sqlc.arg(only_scope) AS TEXT) = '' OR scope = CAST(sqlc.arg(only_scope) AS TEXT))
    AND (CAST(sqlc.arg(only_account) AS TEXT) = '' OR account_id = CAST(sqlc.arg(only_account) AS TEXT))
ORDER BY bucket, account_id, scope, decision, status_class LIMIT sqlc.arg(max_rows);
