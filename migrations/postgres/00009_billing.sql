-- Billing. A webhook only says that something changed for a customer: its event
-- is kept here once, and its customer queues to be read from the provider.

-- +goose Up
CREATE TABLE stripe_events (
    id          TEXT PRIMARY KEY CHECK (octet_length(id) BETWEEN 1 AND 255),
    type        TEXT NOT NULL,
    -- Null: it concerns no customer, nothing is read for it.
    customer_id TEXT,
    livemode    BOOLEAN NOT NULL,
    source      TEXT NOT NULL CHECK (source IN ('webhook', 'list')),
    occurred_at TIMESTAMPTZ NOT NULL,
    received_at TIMESTAMPTZ NOT NULL,
    replayed_at TIMESTAMPTZ,
    replays     BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX stripe_events_received ON stripe_events (received_at, id);
CREATE INDEX stripe_events_customer ON stripe_events (customer_id);

CREATE TABLE stripe_sync_queue (
    customer_id       TEXT PRIMARY KEY CHECK (octet_length(customer_id) BETWEEN 1 AND 255),
    -- Rises with each reason to read the customer; what is above synced_generation is due.
    generation        BIGINT NOT NULL DEFAULT 0,
    synced_generation BIGINT NOT NULL DEFAULT 0,
    -- Numbers the reads as they begin. What a read found is written only if no
    -- read that began later was written before it: no clock is compared.
    fetches           BIGINT NOT NULL DEFAULT 0,
    written_fetch     BIGINT NOT NULL DEFAULT 0,
    state             TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'dead')),
    reason            TEXT NOT NULL,
    attempts          BIGINT NOT NULL DEFAULT 0,
    next_attempt_at   TIMESTAMPTZ NOT NULL,
    holder            TEXT,
    leased_until      TIMESTAMPTZ,
    last_error        TEXT,
    synced_at         TIMESTAMPTZ,
    updated_at        TIMESTAMPTZ NOT NULL
);
CREATE INDEX stripe_sync_queue_due ON stripe_sync_queue (next_attempt_at) WHERE generation > synced_generation AND state = 'pending';

CREATE TABLE checkout_sessions (
    id         TEXT PRIMARY KEY,
    account_id TEXT NOT NULL CHECK (octet_length(account_id) BETWEEN 1 AND 255),
    plan_id    TEXT NOT NULL REFERENCES subscription_plans (id),
    price      TEXT NOT NULL,
    quantity   BIGINT NOT NULL CHECK (quantity BETWEEN 1 AND 9007199254740992),
    trial_days BIGINT NOT NULL DEFAULT 0,
    url        TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL,
    closed_at  TIMESTAMPTZ
);
CREATE INDEX checkout_sessions_account ON checkout_sessions (account_id, created_at);

CREATE TABLE invoices (
    id                     TEXT PRIMARY KEY,
    account_id             TEXT NOT NULL CHECK (octet_length(account_id) BETWEEN 1 AND 255),
    stripe_subscription_id TEXT,
    number                 TEXT NOT NULL DEFAULT '',
    status                 TEXT NOT NULL,
    currency               TEXT NOT NULL,
    amount_due             BIGINT NOT NULL,
    amount_paid            BIGINT NOT NULL,
    amount_remaining       BIGINT NOT NULL,
    -- How often a payment was tried.
    attempts               BIGINT NOT NULL DEFAULT 0,
    period_start           TIMESTAMPTZ,
    period_end             TIMESTAMPTZ,
    created_at             TIMESTAMPTZ NOT NULL,
    paid_at                TIMESTAMPTZ,
    hosted_url             TEXT NOT NULL DEFAULT '',
    pdf_url                TEXT NOT NULL DEFAULT ''
);
CREATE INDEX invoices_account ON invoices (account_id, created_at, id);

-- Which plan a price was seen to mean. At the provider a lookup key moves on to
-- a plan's next price; who pays the old one keeps the plan.
CREATE TABLE stripe_prices (
    price_id   TEXT PRIMARY KEY,
    plan_id    TEXT NOT NULL REFERENCES subscription_plans (id) ON DELETE CASCADE,
    learned_at TIMESTAMPTZ NOT NULL
);

-- How far the jobs of reconciliation came, and what they found.
CREATE TABLE billing_marks (
    name    TEXT PRIMARY KEY,
    at      TIMESTAMPTZ NOT NULL,
    details TEXT NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(details::jsonb) = 'object')
);

CREATE INDEX subscriptions_renewals ON subscriptions (current_period_end) WHERE is_current;

-- +goose Down
DROP INDEX subscriptions_renewals;
DROP TABLE billing_marks;
DROP TABLE stripe_prices;
DROP TABLE invoices;
DROP TABLE checkout_sessions;
DROP TABLE stripe_sync_queue;
DROP TABLE stripe_events;
