-- name: BeatEpoch :execrows
-- Opens the epoch at first sight, is its heartbeat, and touches nothing if it is
-- closed. The row stays locked to the end of the transaction: nobody closes it meanwhile.
INSERT INTO gateway_epochs (epoch, started_at, last_seen_at, process, kept) VALUES ($1, $2, $2, $3, $4)
ON CONFLICT (epoch) DO UPDATE SET
    last_seen_at = CASE WHEN excluded.last_seen_at > gateway_epochs.last_seen_at THEN excluded.last_seen_at ELSE gateway_epochs.last_seen_at END,
    process = COALESCE(gateway_epochs.process, excluded.process),
    kept = gateway_epochs.kept OR excluded.kept
WHERE gateway_epochs.closed_at IS NULL;

-- name: AdvanceFlush :execrows
UPDATE gateway_epochs SET flush_seq = $2 WHERE epoch = $1 AND flush_seq < $2;

-- name: EpochFlushSeq :many
SELECT flush_seq FROM gateway_epochs WHERE epoch = $1;

-- name: CloseEpoch :execrows
UPDATE gateway_epochs SET closed_at = $2 WHERE epoch = $1 AND closed_at IS NULL;

-- name: DeadEpochs :many
-- Its rows are locked where the engine has rows to lock: see Engine.claiming.
SELECT epoch FROM gateway_epochs WHERE closed_at IS NULL AND last_seen_at < $1 ORDER BY epoch;

-- name: EpochCompacted :many
SELECT compacted_at FROM gateway_epochs WHERE epoch = $1;

-- name: CompactableEpochs :many
-- What counters hold of a kept epoch must have been copied before.
SELECT epoch FROM gateway_epochs WHERE closed_at < $1 AND compacted_at IS NULL AND (NOT kept OR dropped_at IS NOT NULL)
ORDER BY closed_at, epoch LIMIT $2;

-- name: ClaimEpoch :execrows
UPDATE gateway_epochs SET compacted_at = $2 WHERE epoch = $1 AND compacted_at IS NULL AND closed_at IS NOT NULL;

-- name: FoldEpoch :exec
INSERT INTO usage_totals (epoch, account_id, metric, period, period_start, period_end, spent, refunded)
SELECT 'compacted', t.account_id, t.metric, t.period, t.period_start, t.period_end, t.spent, t.refunded
FROM usage_totals t WHERE t.epoch = $1 ORDER BY t.account_id, t.metric, t.period, t.period_start
ON CONFLICT (epoch, account_id, metric, period, period_start) DO UPDATE SET
    spent = usage_totals.spent + excluded.spent, refunded = usage_totals.refunded + excluded.refunded;

-- name: DeleteEpochTotals :exec
DELETE FROM usage_totals WHERE epoch = $1;

-- name: PutTotal :exec
INSERT INTO usage_totals (epoch, account_id, metric, period, period_start, period_end, spent, refunded)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (epoch, account_id, metric, period, period_start) DO UPDATE SET
    spent = CASE WHEN excluded.spent > usage_totals.spent THEN excluded.spent ELSE usage_totals.spent END,
    refunded = CASE WHEN excluded.refunded > usage_totals.refunded THEN excluded.refunded ELSE usage_totals.refunded END;

-- name: EpochTotals :many
SELECT t.account_id, a.kind, t.metric, t.period, t.period_start, t.period_end, t.spent, t.refunded
FROM usage_totals t LEFT JOIN accounts a ON a.id = t.account_id
WHERE t.epoch = $1 ORDER BY t.account_id, t.metric, t.period, t.period_start;

-- name: CounterTotals :many
-- What each epoch has of one counter.
SELECT epoch, period_end, spent, refunded FROM usage_totals
WHERE account_id = $1 AND metric = $2 AND period = $3 AND period_start = $4;

-- name: LevelOffset :one
SELECT CAST(COALESCE(SUM(value - counted), 0) AS BIGINT) AS set_offset FROM usage_levels WHERE account_id = $1 AND metric = $2;

-- name: AddHourly :exec
INSERT INTO usage_hourly (bucket, account_id, scope, decision, status_class, requests, cost) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (bucket, account_id, scope, decision, status_class) DO UPDATE SET
    requests = usage_hourly.requests + excluded.requests, cost = usage_hourly.cost + excluded.cost;

-- name: AddDaily :exec
INSERT INTO usage_daily (bucket, account_id, scope, decision, status_class, requests, cost) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (bucket, account_id, scope, decision, status_class) DO UPDATE SET
    requests = usage_daily.requests + excluded.requests, cost = usage_daily.cost + excluded.cost;

-- name: SeeAccount :exec
INSERT INTO accounts (id, kind, email, first_seen_at, last_seen_at) VALUES ($1, $2, $3, $4, $4)
ON CONFLICT (id) DO UPDATE SET
    -- A token that outlives its user must not bring back what was deleted.
    email = CASE WHEN EXISTS (SELECT 1 FROM user_controls c WHERE c.user_id = excluded.id AND c.state = 'deleted')
        THEN accounts.email ELSE COALESCE(excluded.email, accounts.email) END,
    last_seen_at = CASE WHEN excluded.last_seen_at > accounts.last_seen_at THEN excluded.last_seen_at ELSE accounts.last_seen_at END;

-- name: KnowAccount :exec
INSERT INTO accounts (id, kind, first_seen_at, last_seen_at) VALUES ($1, $2, $3, $3) ON CONFLICT (id) DO NOTHING;
