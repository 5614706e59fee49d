-- name: AccountByCustomer :many
SELECT id, kind FROM accounts WHERE stripe_customer_id = $1;

-- name: LockCustomer :many
-- What changes a customer's subscriptions queues here, with what changes its account's.
UPDATE accounts SET stripe_synced_at = $2 WHERE stripe_customer_id = $1 RETURNING id, kind;

-- name: RaiseEntitlementVersion :exec
UPDATE accounts SET entitlement_version = entitlement_version + 1 WHERE id = $1;

-- name: BillingAccount :many
SELECT id, kind, email, stripe_customer_id, stripe_synced_at FROM accounts WHERE id = $1;

-- name: PutCustomer :exec
-- The first customer of an account stays its customer.
INSERT INTO accounts (id, kind, email, stripe_customer_id, first_seen_at, last_seen_at) VALUES ($1, $2, $3, $4, $5, $5)
ON CONFLICT (id) DO UPDATE SET stripe_customer_id = COALESCE(accounts.stripe_customer_id, excluded.stripe_customer_id);

-- name: ReplaceCustomer :execrows
UPDATE accounts SET stripe_customer_id = $3 WHERE id = $1 AND stripe_customer_id = $2;

-- name: AccountSubscriptions :many
SELECT id, account_id, plan_id, plan_price_id, source, status, stripe_status, is_current, quantity, started_at, billing_anchor,
    trial_end, current_period_start, current_period_end, cancel_at_period_end, cancelled_at, ended_at, past_due_since,
    pending_plan_id, pending_effective_at, pending_period_end, stripe_subscription_id, granted_by, grant_reason, created_at, updated_at,
    granted_over
FROM subscriptions WHERE account_id = $1 ORDER BY created_at, id;

-- name: InsertBilledSubscription :exec
INSERT INTO subscriptions (id, account_id, plan_id, plan_price_id, source, status, stripe_status, is_current, quantity, started_at,
    billing_anchor, trial_end, current_period_start, current_period_end, cancel_at_period_end, cancelled_at, ended_at, past_due_since,
    pending_plan_id, pending_effective_at, pending_period_end, stripe_subscription_id, created_at, updated_at)
VALUES ($1, $2, $3, $4, 'stripe', $5, $6, FALSE, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $21);

-- name: UpdateBilledSubscription :exec
UPDATE subscriptions SET plan_id = $2, plan_price_id = $3, status = $4, stripe_status = $5, quantity = $6, started_at = $7,
    billing_anchor = $8, trial_end = $9, current_period_start = $10, current_period_end = $11, cancel_at_period_end = $12,
    cancelled_at = $13, ended_at = $14, past_due_since = $15, pending_plan_id = $16, pending_effective_at = $17,
    pending_period_end = $18, updated_at = $19
WHERE id = $1;

-- name: UnsetCurrent :exec
UPDATE subscriptions SET is_current = FALSE, updated_at = $2 WHERE account_id = $1 AND is_current;

-- name: SetCurrent :exec
UPDATE subscriptions SET is_current = TRUE, updated_at = $2 WHERE id = $1;

-- name: ListLearnedPrices :many
SELECT price_id, plan_id FROM stripe_prices ORDER BY price_id;

-- name: LearnPrice :exec
INSERT INTO stripe_prices (price_id, plan_id, learned_at) VALUES ($1, $2, $3) ON CONFLICT (price_id) DO NOTHING;

-- name: PutInvoice :exec
INSERT INTO invoices (id, account_id, stripe_subscription_id, number, status, currency, amount_due, amount_paid, amount_remaining,
    period_start, period_end, created_at, paid_at, hosted_url, pdf_url, attempts)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
ON CONFLICT (id) DO UPDATE SET account_id = excluded.account_id, stripe_subscription_id = excluded.stripe_subscription_id,
    number = excluded.number, status = excluded.status, amount_due = excluded.amount_due, amount_paid = excluded.amount_paid,
    amount_remaining = excluded.amount_remaining, paid_at = excluded.paid_at, hosted_url = excluded.hosted_url, pdf_url = excluded.pdf_url,
    attempts = excluded.attempts;

-- name: InvoiceStates :many
SELECT id, status, amount_remaining, attempts FROM invoices WHERE account_id = $1;

-- name: ListInvoices :many
SELECT id, account_id, stripe_subscription_id, number, status, currency, amount_due, amount_paid, amount_remaining,
    period_start, period_end, created_at, paid_at, hosted_url, pdf_url, attempts
FROM invoices WHERE account_id = $1 ORDER BY created_at DESC, id DESC LIMIT $2 OFFSET $3;

-- name: CountInvoices :one
SELECT COUNT(*) FROM invoices WHERE account_id = $1;

-- name: InsertCheckout :exec
INSERT INTO checkout_sessions (id, account_id, customer_id, plan_id, price, quantity, trial_days, url, created_by, created_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (id) DO NOTHING;

-- name: LastCheckout :many
SELECT id, account_id, customer_id, plan_id, price, quantity, trial_days, url, created_by, created_at, expires_at, closed_at
FROM checkout_sessions WHERE account_id = $1
ORDER BY CASE WHEN closed_at IS NULL THEN 0 ELSE 1 END, created_at DESC, id DESC LIMIT 1;

-- name: CountCheckouts :one
SELECT COUNT(*) FROM checkout_sessions WHERE id = $1 AND account_id = $2;

-- name: CloseCheckouts :exec
UPDATE checkout_sessions SET closed_at = $2 WHERE account_id = $1 AND closed_at IS NULL;

-- name: CloseCheckout :exec
UPDATE checkout_sessions SET closed_at = $2 WHERE id = $1 AND closed_at IS NULL;

-- name: HadTrial :one
SELECT COUNT(*) FROM subscriptions WHERE account_id = $1 AND trial_end IS NOT NULL;

-- name: OverdueCustomers :many
-- Whose period is over and was not read since. A grant that is over is read once:
-- nothing renews it. Who was not read for the longest comes first, so that nobody is
-- kept waiting by those whom reading does not help.
SELECT a.stripe_customer_id FROM subscriptions s JOIN accounts a ON a.id = s.account_id
LEFT JOIN stripe_sync_queue q ON q.customer_id = a.stripe_customer_id
WHERE s.is_current AND s.current_period_end <= $1 AND s.status IN ('active', 'trial', 'past_due')
    AND a.stripe_customer_id IS NOT NULL
    AND (q.customer_id IS NULL OR (q.generation = q.synced_generation AND (q.synced_at IS NULL
        OR (q.synced_at <= $2 AND (s.source = 'stripe' OR q.synced_at < s.current_period_end)))))
ORDER BY CASE WHEN q.synced_at IS NULL THEN 0 ELSE 1 END, q.synced_at, s.current_period_end LIMIT $3;

-- name: BilledSubscriptions :many
SELECT s.id, s.account_id, a.kind, a.stripe_customer_id, s.plan_id, s.stripe_status, s.quantity, s.current_period_start, s.current_period_end,
    s.cancel_at_period_end, s.ended_at, s.trial_end, s.stripe_subscription_id, s.status
FROM subscriptions s LEFT JOIN accounts a ON a.id = s.account_id
WHERE s.source = 'stripe' AND s.id > $1 ORDER BY s.id LIMIT $2;

-- name: CountUnknownPrices :one
SELECT COUNT(*) FROM subscriptions WHERE source = 'stripe' AND plan_id IS NULL AND status IN ('active', 'trial', 'past_due');

-- name: GracesEnded :many
-- Whose payment failed after the one and until the other time, and did not come yet.
SELECT s.id, s.account_id, a.kind, s.plan_id, s.stripe_subscription_id FROM subscriptions s JOIN accounts a ON a.id = s.account_id
WHERE s.is_current AND s.status = 'past_due' AND s.past_due_since > $1 AND s.past_due_since <= $2 ORDER BY s.id;
