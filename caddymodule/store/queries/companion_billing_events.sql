-- name: InsertBillingEvent :execrows
INSERT INTO stripe_events (id, type, customer_id, livemode, source, occurred_at, received_at) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (id) DO NOTHING;

-- name: ListBillingEvents :many
SELECT e.id, e.type, e.customer_id, e.livemode, e.source, e.occurred_at, e.received_at, e.replayed_at, e.replays,
    a.id AS account_id, q.state, q.attempts, q.last_error, q.synced_at,
    CAST(COALESCE(q.generation - q.synced_generation, 0) AS BIGINT) AS behind
FROM stripe_events e
LEFT JOIN stripe_sync_queue q ON q.customer_id = e.customer_id
LEFT JOIN accounts a ON a.stripe_customer_id = e.customer_id
ORDER BY e.received_at DESC, e.id DESC LIMIT $1 OFFSET $2;

-- name: CountBillingEvents :one
SELECT COUNT(*) FROM stripe_events;

-- name: ReplayBillingEvent :many
UPDATE stripe_events SET replayed_at = $2, replays = replays + 1 WHERE id = $1 RETURNING customer_id;

-- name: PruneBillingEvents :execrows
DELETE FROM stripe_events WHERE received_at < $1;

-- name: EnqueueSync :exec
-- A new reason revives what was given up, and does not hurry what is backing off.
-- The customer waits since the first of those that were not read.
INSERT INTO stripe_sync_queue (customer_id, generation, reason, next_attempt_at, due_since, updated_at) VALUES ($1, 1, $2, $3, $3, $3)
ON CONFLICT (customer_id) DO UPDATE SET generation = stripe_sync_queue.generation + 1, reason = excluded.reason,
    due_since = COALESCE(stripe_sync_queue.due_since, excluded.due_since),
    attempts = CASE WHEN stripe_sync_queue.state = 'dead' OR stripe_sync_queue.generation = stripe_sync_queue.synced_generation
        THEN 0 ELSE stripe_sync_queue.attempts END,
    next_attempt_at = CASE WHEN stripe_sync_queue.state = 'dead' OR stripe_sync_queue.generation = stripe_sync_queue.synced_generation
        THEN excluded.next_attempt_at ELSE stripe_sync_queue.next_attempt_at END,
    state = 'pending', updated_at = excluded.updated_at;

-- name: DueSyncs :many
SELECT customer_id, attempts FROM stripe_sync_queue
WHERE generation > synced_generation AND state = 'pending' AND next_attempt_at <= $1 AND (leased_until IS NULL OR leased_until <= $1)
ORDER BY next_attempt_at, customer_id LIMIT $2;

-- name: LeaseSync :many
-- Of several that found the customer due, one updates its row. A lease that ran
-- out counts as an attempt: its holder may have died of this very customer.
UPDATE stripe_sync_queue SET holder = $2, leased_until = $3, fetches = fetches + 1,
    attempts = attempts + CASE WHEN leased_until IS NULL THEN 0 ELSE 1 END
WHERE customer_id = $1 AND generation > synced_generation AND state = 'pending' AND (leased_until IS NULL OR leased_until <= $4)
RETURNING generation, fetches, attempts;

-- name: BeginFetch :many
UPDATE stripe_sync_queue SET fetches = fetches + 1 WHERE customer_id = $1 RETURNING generation, fetches, attempts;

-- name: ClaimWrite :execrows
-- None if what a later read found was written already.
UPDATE stripe_sync_queue SET written_fetch = $2 WHERE customer_id = $1 AND written_fetch < $2;

-- name: FinishSync :exec
-- The provider is up: what came during the read does not wait as what came before it did.
UPDATE stripe_sync_queue SET
    synced_generation = CASE WHEN synced_generation < $2 THEN $2 ELSE synced_generation END,
    due_since = CASE WHEN generation <= $2 THEN NULL WHEN synced_generation < $2 THEN $3 ELSE due_since END,
    attempts = 0, next_attempt_at = $3, state = 'pending', last_error = NULL, synced_at = $3, updated_at = $3,
    leased_until = CASE WHEN holder = $4 THEN NULL ELSE leased_until END
WHERE customer_id = $1;

-- name: ReturnSync :exec
UPDATE stripe_sync_queue SET leased_until = NULL WHERE customer_id = $1 AND holder = $2;

-- name: CountRead :one
-- Whether the customer waits to be read, or was read since.
SELECT COUNT(*) FROM stripe_sync_queue
WHERE customer_id = $1 AND (synced_at >= $2 OR generation > synced_generation AND state = 'pending');

-- name: FailSync :execrows
-- None if another has read meanwhile what the job was to read.
UPDATE stripe_sync_queue SET state = $3, attempts = attempts + 1, next_attempt_at = $4, last_error = $5, updated_at = $6, leased_until = NULL
WHERE customer_id = $1 AND holder = $2 AND synced_generation < $7;

-- name: QueueHealth :one
SELECT CAST(COALESCE(SUM(CASE WHEN generation > synced_generation AND state = 'pending' THEN 1 ELSE 0 END), 0) AS BIGINT) AS pending,
    CAST(COALESCE(SUM(CASE WHEN state = 'dead' THEN 1 ELSE 0 END), 0) AS BIGINT) AS dead
FROM stripe_sync_queue;

-- name: OldestDue :many
SELECT due_since FROM stripe_sync_queue
WHERE generation > synced_generation AND state = 'pending' ORDER BY due_since LIMIT 1;

-- name: GetBillingMark :many
SELECT at, details FROM billing_marks WHERE name = $1;

-- name: PutBillingMark :exec
INSERT INTO billing_marks (name, at, details) VALUES ($1, $2, $3)
ON CONFLICT (name) DO UPDATE SET at = excluded.at, details = excluded.details;
