-- +goose Up
-- +goose StatementBegin
DO $$
BEGIN
    -- Names below are not qualified, so that the same queries serve both engines.
    -- A stray search_path must not put a table of ours into the host's schema.
    IF current_schema() IS DISTINCT FROM 'quotagate' THEN
        RAISE EXCEPTION 'migrations run with search_path = quotagate, not %', current_schema();
    END IF;
END
$$;
-- +goose StatementEnd

CREATE TABLE subscription_plans (
    id                    TEXT PRIMARY KEY DEFAULT gen_random_uuid()::text,
    name                  TEXT NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9][a-z0-9_-]{0,63}$'),
    display_name          TEXT NOT NULL,
    description           TEXT NOT NULL DEFAULT '',
    tier                  BIGINT NOT NULL DEFAULT 0,
    is_default            BOOLEAN NOT NULL DEFAULT FALSE,
    is_active             BOOLEAN NOT NULL DEFAULT TRUE,
    is_public             BOOLEAN NOT NULL DEFAULT TRUE,
    trial_days            BIGINT NOT NULL DEFAULT 0 CHECK (trial_days BETWEEN 0 AND 3650),
    features              TEXT NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(features::jsonb) = 'object'),
    -- The upper bound also keeps out NaN, which Postgres sorts above every number.
    rate_limit_multiplier NUMERIC NOT NULL DEFAULT 1
        CHECK (rate_limit_multiplier > 0 AND rate_limit_multiplier <= 100 AND rate_limit_multiplier = round(rate_limit_multiplier, 2)),
    rate_limits           TEXT NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(rate_limits::jsonb) = 'object'),
    version               BIGINT NOT NULL DEFAULT 1,
    created_at            TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at            TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX subscription_plans_one_default ON subscription_plans (is_default) WHERE is_default;

CREATE TABLE plan_quotas (
    plan_id         TEXT NOT NULL REFERENCES subscription_plans (id) ON DELETE CASCADE,
    metric          TEXT NOT NULL CHECK (metric ~ '^[a-z0-9][a-z0-9_-]{0,63}$'),
    limit_value     BIGINT CHECK (limit_value BETWEEN 0 AND 9007199254740992),
    period          TEXT NOT NULL CHECK (period IN ('day', 'month', 'billing', 'none')),
    exceeded_status BIGINT NOT NULL CHECK (exceeded_status IN (402, 403, 413, 429)),
    PRIMARY KEY (plan_id, metric)
);

CREATE TABLE plan_prices (
    id                TEXT PRIMARY KEY DEFAULT gen_random_uuid()::text,
    plan_id           TEXT NOT NULL REFERENCES subscription_plans (id) ON DELETE CASCADE,
    "interval"        TEXT NOT NULL CHECK ("interval" IN ('month', 'year')),
    currency          TEXT NOT NULL CHECK (currency ~ '^[a-z]{3}$'),
    unit_amount       BIGINT NOT NULL CHECK (unit_amount BETWEEN 0 AND 9007199254740992),
    per_seat          BOOLEAN NOT NULL DEFAULT FALSE,
    stripe_lookup_key TEXT,
    stripe_price_id   TEXT UNIQUE,
    livemode          BOOLEAN NOT NULL DEFAULT FALSE,
    is_active         BOOLEAN NOT NULL DEFAULT TRUE
);
CREATE UNIQUE INDEX plan_prices_lookup_key ON plan_prices (stripe_lookup_key) WHERE is_active AND stripe_lookup_key IS NOT NULL;
CREATE INDEX plan_prices_plan ON plan_prices (plan_id);

CREATE TABLE accounts (
    id                  TEXT PRIMARY KEY CHECK (octet_length(id) BETWEEN 1 AND 255),
    kind                TEXT NOT NULL CHECK (kind IN ('user', 'org')),
    email               TEXT,
    stripe_customer_id  TEXT UNIQUE,
    stripe_synced_at    TIMESTAMPTZ,
    entitlement_version BIGINT NOT NULL DEFAULT 0,
    first_seen_at       TIMESTAMPTZ NOT NULL DEFAULT now(),
    last_seen_at        TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE INDEX accounts_email ON accounts (email);

CREATE TABLE subscriptions (
    id                     TEXT PRIMARY KEY DEFAULT gen_random_uuid()::text,
    account_id             TEXT NOT NULL CHECK (octet_length(account_id) BETWEEN 1 AND 255),
    plan_id                TEXT REFERENCES subscription_plans (id),
    plan_price_id          TEXT REFERENCES plan_prices (id),
    source                 TEXT NOT NULL CHECK (source IN ('stripe', 'manual', 'trial')),
    status                 TEXT NOT NULL CHECK (status IN ('active', 'trial', 'past_due', 'cancelled', 'expired')),
    stripe_status          TEXT,
    is_current             BOOLEAN NOT NULL DEFAULT TRUE,
    quantity               BIGINT NOT NULL DEFAULT 1 CHECK (quantity BETWEEN 1 AND 9007199254740992),
    started_at             TIMESTAMPTZ NOT NULL DEFAULT now(),
    -- Billing periods are counted from here; null: from started_at. An upgrade
    -- keeps its predecessor's, so that it resets no usage.
    billing_anchor         TIMESTAMPTZ,
    trial_end              TIMESTAMPTZ,
    current_period_start   TIMESTAMPTZ,
    current_period_end     TIMESTAMPTZ,
    cancel_at_period_end   BOOLEAN NOT NULL DEFAULT FALSE,
    cancelled_at           TIMESTAMPTZ,
    ended_at               TIMESTAMPTZ,
    past_due_since         TIMESTAMPTZ,
    pending_plan_id        TEXT REFERENCES subscription_plans (id),
    pending_effective_at   TIMESTAMPTZ,
    pending_period_end     TIMESTAMPTZ,
    stripe_subscription_id TEXT UNIQUE,
    granted_by             TEXT,
    grant_reason           TEXT,
    created_at             TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at             TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT trial_has_an_end CHECK (status <> 'trial' OR trial_end IS NOT NULL),
    CONSTRAINT past_due_has_a_start CHECK (status <> 'past_due' OR past_due_since IS NOT NULL),
    CONSTRAINT pending_plan_has_a_start CHECK (pending_plan_id IS NULL OR pending_effective_at IS NOT NULL)
);
CREATE UNIQUE INDEX subscriptions_one_current ON subscriptions (account_id) WHERE is_current;
CREATE INDEX subscriptions_account ON subscriptions (account_id, created_at);
CREATE INDEX subscriptions_plan ON subscriptions (plan_id);

CREATE TABLE quota_overrides (
    id          TEXT PRIMARY KEY DEFAULT gen_random_uuid()::text,
    account_id  TEXT NOT NULL CHECK (octet_length(account_id) BETWEEN 1 AND 255),
    metric      TEXT NOT NULL CHECK (metric ~ '^[a-z0-9][a-z0-9_-]{0,63}$'),
    mode        TEXT NOT NULL CHECK (mode IN ('set', 'add')),
    limit_value BIGINT CHECK (limit_value BETWEEN 0 AND 9007199254740992),
    starts_at   TIMESTAMPTZ NOT NULL DEFAULT now(),
    expires_at  TIMESTAMPTZ,
    reason      TEXT,
    created_by  TEXT,
    revoked_at  TIMESTAMPTZ,
    CONSTRAINT top_up_has_an_amount CHECK (mode = 'set' OR limit_value IS NOT NULL)
);
CREATE INDEX quota_overrides_account ON quota_overrides (account_id);

CREATE TABLE rate_limit_overrides (
    id             TEXT PRIMARY KEY DEFAULT gen_random_uuid()::text,
    account_id     TEXT NOT NULL CHECK (octet_length(account_id) BETWEEN 1 AND 255),
    scope          TEXT NOT NULL CHECK (scope ~ '^[a-z0-9][a-z0-9_-]{0,63}$'),
    requests       BIGINT NOT NULL CHECK (requests BETWEEN 0 AND 9007199254740992),
    window_seconds BIGINT NOT NULL CHECK (window_seconds BETWEEN 1 AND 34560000),
    starts_at      TIMESTAMPTZ NOT NULL DEFAULT now(),
    expires_at     TIMESTAMPTZ,
    reason         TEXT,
    created_by     TEXT,
    revoked_at     TIMESTAMPTZ
);
CREATE INDEX rate_limit_overrides_account ON rate_limit_overrides (account_id);

CREATE TABLE gateway_epochs (
    epoch        TEXT PRIMARY KEY,
    started_at   TIMESTAMPTZ NOT NULL,
    last_seen_at TIMESTAMPTZ NOT NULL,
    closed_at    TIMESTAMPTZ,
    -- The number of the last flush whose rollups were applied.
    flush_seq    BIGINT NOT NULL DEFAULT 0,
    -- When the epoch's rows of usage_totals became part of the epoch 'compacted'.
    compacted_at TIMESTAMPTZ
);
CREATE INDEX gateway_epochs_open ON gateway_epochs (last_seen_at) WHERE closed_at IS NULL;
CREATE INDEX gateway_epochs_closed ON gateway_epochs (closed_at) WHERE compacted_at IS NULL;

CREATE TABLE usage_totals (
    epoch        TEXT NOT NULL,
    account_id   TEXT NOT NULL CHECK (octet_length(account_id) BETWEEN 1 AND 255),
    metric       TEXT NOT NULL,
    period       TEXT NOT NULL CHECK (period IN ('day', 'month', 'billing', 'none')),
    -- Of a level ('none') 1970-01-01, and period_end is null.
    period_start TIMESTAMPTZ NOT NULL,
    period_end   TIMESTAMPTZ,
    spent        BIGINT NOT NULL CHECK (spent >= 0),
    refunded     BIGINT NOT NULL CHECK (refunded >= 0),
    PRIMARY KEY (epoch, account_id, metric, period, period_start)
);
CREATE INDEX usage_totals_account ON usage_totals (account_id, metric, period, period_start);

-- The level of an account is value - counted + what usage_totals hold now:
-- counted is what they held when the value was set, kept by a trigger.
CREATE TABLE usage_levels (
    account_id  TEXT NOT NULL CHECK (octet_length(account_id) BETWEEN 1 AND 255),
    metric      TEXT NOT NULL CHECK (metric ~ '^[a-z0-9][a-z0-9_-]{0,63}$'),
    value       BIGINT NOT NULL CHECK (value BETWEEN 0 AND 9007199254740992),
    measured_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    counted     BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (account_id, metric)
);

CREATE TABLE usage_hourly (
    bucket       TIMESTAMPTZ NOT NULL,
    account_id   TEXT NOT NULL,
    scope        TEXT NOT NULL,
    decision     TEXT NOT NULL,
    status_class BIGINT NOT NULL CHECK (status_class BETWEEN 0 AND 9),
    requests     BIGINT NOT NULL,
    cost         BIGINT NOT NULL,
    PRIMARY KEY (bucket, account_id, scope, decision, status_class)
);
CREATE INDEX usage_hourly_account ON usage_hourly (account_id, bucket);

CREATE TABLE usage_daily (
    bucket       TIMESTAMPTZ NOT NULL,
    account_id   TEXT NOT NULL,
    scope        TEXT NOT NULL,
    decision     TEXT NOT NULL,
    status_class BIGINT NOT NULL CHECK (status_class BETWEEN 0 AND 9),
    requests     BIGINT NOT NULL,
    cost         BIGINT NOT NULL,
    PRIMARY KEY (bucket, account_id, scope, decision, status_class)
);
CREATE INDEX usage_daily_account ON usage_daily (account_id, bucket);

CREATE TABLE quota_notifications (
    account_id   TEXT NOT NULL,
    metric       TEXT NOT NULL,
    period_start TIMESTAMPTZ NOT NULL,
    threshold    BIGINT NOT NULL CHECK (threshold BETWEEN 1 AND 100),
    limit_value  BIGINT NOT NULL,
    created_at   TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (account_id, metric, period_start, threshold, limit_value)
);

CREATE TABLE user_controls (
    user_id            TEXT PRIMARY KEY CHECK (octet_length(user_id) BETWEEN 1 AND 255),
    state              TEXT NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'suspended', 'deleted')),
    previous_status    TEXT,
    reason             TEXT,
    until              TIMESTAMPTZ,
    tokens_valid_after TIMESTAMPTZ,
    original_email     TEXT,
    purge_after        TIMESTAMPTZ,
    updated_by         TEXT,
    updated_at         TIMESTAMPTZ NOT NULL DEFAULT now()
);

CREATE TABLE revoked_sessions (
    session_id TEXT PRIMARY KEY,
    user_id    TEXT NOT NULL CHECK (octet_length(user_id) BETWEEN 1 AND 255),
    revoked_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE INDEX revoked_sessions_user ON revoked_sessions (user_id);

CREATE TABLE admins (
    user_id    TEXT PRIMARY KEY CHECK (octet_length(user_id) BETWEEN 1 AND 255),
    role       TEXT NOT NULL DEFAULT 'superadmin' CHECK (role IN ('superadmin')),
    granted_by TEXT,
    granted_at TIMESTAMPTZ NOT NULL DEFAULT now()
);

CREATE SEQUENCE changes_seq;
CREATE TABLE changes (
    seq        BIGINT PRIMARY KEY,
    subject    TEXT NOT NULL,
    version    BIGINT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now()
);

CREATE TABLE leases (
    name       TEXT PRIMARY KEY,
    holder     TEXT NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL
);

-- +goose Down
DROP TABLE leases;
DROP TABLE changes;
DROP SEQUENCE changes_seq;
DROP TABLE admins;
DROP TABLE revoked_sessions;
DROP TABLE user_controls;
DROP TABLE quota_notifications;
DROP TABLE usage_daily;
DROP TABLE usage_hourly;
DROP TABLE usage_levels;
DROP TABLE usage_totals;
DROP TABLE gateway_epochs;
DROP TABLE rate_limit_overrides;
DROP TABLE quota_overrides;
DROP TABLE subscriptions;
DROP TABLE accounts;
DROP TABLE plan_prices;
DROP TABLE plan_quotas;
DROP TABLE subscription_plans;
