-- Billing. A webhook only says that something changed for a customer: its event
-- is kept here once, and its customer queues to be read from the provider.

-- +goose Up
CREATE TABLE stripe_events (
    id          TEXT NOT NULL PRIMARY KEY CHECK (length(CAST(id AS BLOB)) BETWEEN 1 AND 255),
    type        TEXT NOT NULL,
    -- Null: it concerns no customer, nothing is read for it.
    customer_id TEXT,
    livemode    INTEGER NOT NULL CHECK (livemode IN (0, 1)),
    source      TEXT NOT NULL CHECK (source IN ('webhook', 'list')),
    occurred_at TEXT NOT NULL CHECK (julianday(occurred_at) IS NOT NULL),
    received_at TEXT NOT NULL CHECK (julianday(received_at) IS NOT NULL),
    replayed_at TEXT CHECK (replayed_at IS NULL OR julianday(replayed_at) IS NOT NULL),
    replays     INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX stripe_events_received ON stripe_events (received_at, id);
CREATE INDEX stripe_events_customer ON stripe_events (customer_id);

CREATE TABLE stripe_sync_queue (
    customer_id       TEXT NOT NULL PRIMARY KEY CHECK (length(CAST(customer_id AS BLOB)) BETWEEN 1 AND 255),
    -- Rises with each reason to read the customer; what is above synced_generation is due.
    generation        INTEGER NOT NULL DEFAULT 0,
    synced_generation INTEGER NOT NULL DEFAULT 0,
    -- Numbers the reads as they begin. What a read found is written only if no
    -- read that began later was written before it: no clock is compared.
    fetches           INTEGER NOT NULL DEFAULT 0,
    written_fetch     INTEGER NOT NULL DEFAULT 0,
    state             TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'dead')),
    reason            TEXT NOT NULL,
    attempts          INTEGER NOT NULL DEFAULT 0,
    next_attempt_at   TEXT NOT NULL CHECK (julianday(next_attempt_at) IS NOT NULL),
    holder            TEXT,
    leased_until      TEXT CHECK (leased_until IS NULL OR julianday(leased_until) IS NOT NULL),
    last_error        TEXT,
    synced_at         TEXT CHECK (synced_at IS NULL OR julianday(synced_at) IS NOT NULL),
    updated_at        TEXT NOT NULL CHECK (julianday(updated_at) IS NOT NULL)
) STRICT;
CREATE INDEX stripe_sync_queue_due ON stripe_sync_queue (next_attempt_at) WHERE generation > synced_generation AND state = 'pending';

CREATE TABLE checkout_sessions (
    id         TEXT NOT NULL PRIMARY KEY,
    account_id TEXT NOT NULL CHECK (length(CAST(account_id AS BLOB)) BETWEEN 1 AND 255),
    plan_id    TEXT NOT NULL REFERENCES subscription_plans (id),
    price      TEXT NOT NULL,
    quantity   INTEGER NOT NULL CHECK (quantity BETWEEN 1 AND 9007199254740992),
    trial_days INTEGER NOT NULL DEFAULT 0,
    url        TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at TEXT NOT NULL CHECK (julianday(created_at) IS NOT NULL),
    expires_at TEXT NOT NULL CHECK (julianday(expires_at) IS NOT NULL),
    closed_at  TEXT CHECK (closed_at IS NULL OR julianday(closed_at) IS NOT NULL)
) STRICT;
CREATE INDEX checkout_sessions_account ON checkout_sessions (account_id, created_at);

CREATE TABLE invoices (
    id                     TEXT NOT NULL PRIMARY KEY,
    account_id             TEXT NOT NULL CHECK (length(CAST(account_id AS BLOB)) BETWEEN 1 AND 255),
    stripe_subscription_id TEXT,
    number                 TEXT NOT NULL DEFAULT '',
    status                 TEXT NOT NULL,
    currency               TEXT NOT NULL,
    amount_due             INTEGER NOT NULL,
    amount_paid            INTEGER NOT NULL,
    amount_remaining       INTEGER NOT NULL,
    -- How often a payment was tried.
    attempts               INTEGER NOT NULL DEFAULT 0,
    period_start           TEXT CHECK (period_start IS NULL OR julianday(period_start) IS NOT NULL),
    period_end             TEXT CHECK (period_end IS NULL OR julianday(period_end) IS NOT NULL),
    created_at             TEXT NOT NULL CHECK (julianday(created_at) IS NOT NULL),
    paid_at                TEXT CHECK (paid_at IS NULL OR julianday(paid_at) IS NOT NULL),
    hosted_url             TEXT NOT NULL DEFAULT '',
    pdf_url                TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX invoices_account ON invoices (account_id, created_at, id);

-- Which plan a price was seen to mean. At the provider a lookup key moves on to
-- a plan's next price; who pays the old one keeps the plan.
CREATE TABLE stripe_prices (
    price_id   TEXT NOT NULL PRIMARY KEY,
    plan_id    TEXT NOT NULL REFERENCES subscription_plans (id) ON DELETE CASCADE,
    learned_at TEXT NOT NULL CHECK (julianday(learned_at) IS NOT NULL)
) STRICT;

-- How far the jobs of reconciliation came, and what they found.
CREATE TABLE billing_marks (
    name    TEXT NOT NULL PRIMARY KEY,
    at      TEXT NOT NULL CHECK (julianday(at) IS NOT NULL),
    details TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(details) AND json_type(details) = 'object')
) STRICT;

CREATE INDEX subscriptions_renewals ON subscriptions (current_period_end) WHERE is_current;

-- +goose Down
DROP INDEX subscriptions_renewals;
DROP TABLE billing_marks;
DROP TABLE stripe_prices;
DROP TABLE invoices;
DROP TABLE checkout_sessions;
DROP TABLE stripe_sync_queue;
DROP TABLE stripe_events;
