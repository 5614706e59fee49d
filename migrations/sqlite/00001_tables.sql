-- +goose Up
-- Times are text, 'YYYY-MM-DD HH:MM:SS.ffffffZ' in UTC: it sorts, and SQLite's own datetime() sorts with it.
CREATE TABLE subscription_plans (
    id                    TEXT NOT NULL PRIMARY KEY DEFAULT (lower(hex(randomblob(16)))),
    name                  TEXT NOT NULL UNIQUE CHECK (name GLOB '[a-z0-9]*' AND name NOT GLOB '*[^a-z0-9_-]*' AND length(name) <= 64),
    display_name          TEXT NOT NULL,
    description           TEXT NOT NULL DEFAULT '',
    tier                  INTEGER NOT NULL DEFAULT 0,
    is_default            INTEGER NOT NULL DEFAULT FALSE CHECK (is_default IN (0, 1)),
    is_active             INTEGER NOT NULL DEFAULT TRUE CHECK (is_active IN (0, 1)),
    is_public             INTEGER NOT NULL DEFAULT TRUE CHECK (is_public IN (0, 1)),
    trial_days            INTEGER NOT NULL DEFAULT 0 CHECK (trial_days BETWEEN 0 AND 3650),
    features              TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(features) AND json_type(features) = 'object'),
    rate_limit_multiplier REAL NOT NULL DEFAULT 1
        CHECK (rate_limit_multiplier > 0 AND rate_limit_multiplier <= 100 AND rate_limit_multiplier = round(rate_limit_multiplier, 2)),
    rate_limits           TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(rate_limits) AND json_type(rate_limits) = 'object'),
    version               INTEGER NOT NULL DEFAULT 1,
    created_at            TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f000Z', 'now')) CHECK (julianday(created_at) IS NOT NULL),
    updated_at            TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f000Z', 'now')) CHECK (julianday(updated_at) IS NOT NULL)
) STRICT;
CREATE UNIQUE INDEX subscription_plans_one_default ON subscription_plans (is_default) WHERE is_default;

CREATE TABLE plan_quotas (
    plan_id         TEXT NOT NULL REFERENCES subscription_plans (id) ON DELETE CASCADE,
    metric          TEXT NOT NULL CHECK (metric GLOB '[a-z0-9]*' AND metric NOT GLOB '*[^a-z0-9_-]*' AND length(metric) <= 64),
    limit_value     INTEGER CHECK (limit_value BETWEEN 0 AND 9007199254740992),
    period          TEXT NOT NULL CHECK (period IN ('day', 'month', 'billing', 'none')),
    exceeded_status INTEGER NOT NULL CHECK (exceeded_status IN (402, 403, 413, 429)),
    PRIMARY KEY (plan_id, metric)
) STRICT;

CREATE TABLE plan_prices (
    id                TEXT NOT NULL PRIMARY KEY DEFAULT (lower(hex(randomblob(16)))),
    plan_id           TEXT NOT NULL REFERENCES subscription_plans (id) ON DELETE CASCADE,
    "interval"        TEXT NOT NULL CHECK ("interval" IN ('month', 'year')),
    currency          TEXT NOT NULL CHECK (currency GLOB '[a-z][a-z][a-z]'),
    unit_amount       INTEGER NOT NULL CHECK (unit_amount BETWEEN 0 AND 9007199254740992),
    per_seat          INTEGER NOT NULL DEFAULT FALSE CHECK (per_seat IN (0, 1)),
    stripe_lookup_key TEXT,
    stripe_price_id   TEXT UNIQUE,
    livemode          INTEGER NOT NULL DEFAULT FALSE CHECK (livemode IN (0, 1)),
    is_active         INTEGER NOT NULL DEFAULT TRUE CHECK (is_active IN (0, 1))
) STRICT;
CREATE UNIQUE INDEX plan_prices_lookup_key ON plan_prices (stripe_lookup_key) WHERE is_active AND stripe_lookup_key IS NOT NULL;
CREATE INDEX plan_prices_plan ON plan_prices (plan_id);

CREATE TABLE accounts (
    id                  TEXT NOT NULL PRIMARY KEY CHECK (length(CAST(id AS BLOB)) BETWEEN 1 AND 255),
    kind                TEXT NOT NULL CHECK (kind IN ('user', 'org')),
    email               TEXT,
    stripe_customer_id  TEXT UNIQUE,
    stripe_synced_at    TEXT CHECK (stripe_synced_at IS NULL OR julianday(stripe_synced_at) IS NOT NULL),
    entitlement_version INTEGER NOT NULL DEFAULT 0,
    first_seen_at       TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f000Z', 'now')) CHECK (julianday(first_seen_at) IS NOT NULL),
    last_seen_at        TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f000Z', 'now')) CHECK (julianday(last_seen_at) IS NOT NULL)
) STRICT;
CREATE INDEX accounts_email ON accounts (email);

CREATE TABLE subscriptions (
    id                     TEXT NOT NULL PRIMARY KEY DEFAULT (lower(hex(randomblob(16)))),
    account_id             TEXT NOT NULL CHECK (length(CAST(account_id AS BLOB)) BETWEEN 1 AND 255),
    plan_id                TEXT REFERENCES subscription_plans (id),
    plan_price_id          TEXT REFERENCES plan_prices (id),
    source                 TEXT NOT NULL CHECK (source IN ('stripe', 'manual', 'trial')),
    status                 TEXT NOT NULL CHECK (status IN ('active', 'trial', 'past_due', 'cancelled', 'expired')),
    stripe_status          TEXT,
    is_current             INTEGER NOT NULL DEFAULT TRUE CHECK (is_current IN (0, 1)),
    quantity               INTEGER NOT NULL DEFAULT 1 CHECK (quantity BETWEEN 1 AND 9007199254740992),
    started_at             TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f000Z', 'now')) CHECK (julianday(started_at) IS NOT NULL),
    -- Billing periods are counted from here; null: from started_at. An upgrade
    -- keeps its predecessor's, so that it resets no usage.
    billing_anchor         TEXT CHECK (billing_anchor IS NULL OR julianday(billing_anchor) IS NOT NULL),
    trial_end              TEXT CHECK (trial_end IS NULL OR julianday(trial_end) IS NOT NULL),
    current_period_start   TEXT CHECK (current_period_start IS NULL OR julianday(current_period_start) IS NOT NULL),
    current_period_end     TEXT CHECK (current_period_end IS NULL OR julianday(current_period_end) IS NOT NULL),
    cancel_at_period_end   INTEGER NOT NULL DEFAULT FALSE CHECK (cancel_at_period_end IN (0, 1)),
    cancelled_at           TEXT CHECK (cancelled_at IS NULL OR julianday(cancelled_at) IS NOT NULL),
    ended_at               TEXT CHECK (ended_at IS NULL OR julianday(ended_at) IS NOT NULL),
    past_due_since         TEXT CHECK (past_due_since IS NULL OR julianday(past_due_since) IS NOT NULL),
    pending_plan_id        TEXT REFERENCES subscription_plans (id),
    pending_effective_at   TEXT CHECK (pending_effective_at IS NULL OR julianday(pending_effective_at) IS NOT NULL),
    pending_period_end     TEXT CHECK (pending_period_end IS NULL OR julianday(pending_period_end) IS NOT NULL),
    stripe_subscription_id TEXT UNIQUE,
    granted_by             TEXT,
    grant_reason           TEXT,
    created_at             TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f000Z', 'now')) CHECK (julianday(created_at) IS NOT NULL),
    updated_at             TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f000Z', 'now')) CHECK (julianday(updated_at) IS NOT NULL),
    CONSTRAINT trial_has_an_end CHECK (status <> 'trial' OR trial_end IS NOT NULL),
    CONSTRAINT past_due_has_a_start CHECK (status <> 'past_due' OR past_due_since IS NOT NULL),
    CONSTRAINT pending_plan_has_a_start CHECK (pending_plan_id IS NULL OR pending_effective_at IS NOT NULL)
) STRICT;
CREATE UNIQUE INDEX subscriptions_one_current ON subscriptions (account_id) WHERE is_current;
CREATE INDEX subscriptions_account ON subscriptions (account_id, created_at);
CREATE INDEX subscriptions_plan ON subscriptions (plan_id);

CREATE TABLE quota_overrides (
    id          TEXT NOT NULL PRIMARY KEY DEFAULT (lower(hex(randomblob(16)))),
    account_id  TEXT NOT NULL CHECK (length(CAST(account_id AS BLOB)) BETWEEN 1 AND 255),
    metric      TEXT NOT NULL CHECK (metric GLOB '[a-z0-9]*' AND metric NOT GLOB '*[^a-z0-9_-]*' AND length(metric) <= 64),
    mode        TEXT NOT NULL CHECK (mode IN ('set', 'add')),
    limit_value INTEGER CHECK (limit_value BETWEEN 0 AND 9007199254740992),
    starts_at   TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f000Z', 'now')) CHECK (julianday(starts_at) IS NOT NULL),
    expires_at  TEXT CHECK (expires_at IS NULL OR julianday(expires_at) IS NOT NULL),
    reason      TEXT,
    created_by  TEXT,
    revoked_at  TEXT CHECK (revoked_at IS NULL OR julianday(revoked_at) IS NOT NULL),
    CONSTRAINT top_up_has_an_amount CHECK (mode = 'set' OR limit_value IS NOT NULL)
) STRICT;
CREATE INDEX quota_overrides_account ON quota_overrides (account_id);

CREATE TABLE rate_limit_overrides (
    id             TEXT NOT NULL PRIMARY KEY DEFAULT (lower(hex(randomblob(16)))),
    account_id     TEXT NOT NULL CHECK (length(CAST(account_id AS BLOB)) BETWEEN 1 AND 255),
    scope          TEXT NOT NULL CHECK (scope GLOB '[a-z0-9]*' AND scope NOT GLOB '*[^a-z0-9_-]*' AND length(scope) <= 64),
    requests       INTEGER NOT NULL CHECK (requests BETWEEN 0 AND 9007199254740992),
    window_seconds INTEGER NOT NULL CHECK (window_seconds BETWEEN 1 AND 34560000),
    starts_at      TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f000Z', 'now')) CHECK (julianday(starts_at) IS NOT NULL),
    expires_at     TEXT CHECK (expires_at IS NULL OR julianday(expires_at) IS NOT NULL),
    reason         TEXT,
    created_by     TEXT,
    revoked_at     TEXT CHECK (revoked_at IS NULL OR julianday(revoked_at) IS NOT NULL)
) STRICT;
CREATE INDEX rate_limit_overrides_account ON rate_limit_overrides (account_id);

CREATE TABLE gateway_epochs (
    epoch        TEXT NOT NULL PRIMARY KEY,
    started_at   TEXT NOT NULL CHECK (julianday(started_at) IS NOT NULL),
    last_seen_at TEXT NOT NULL CHECK (julianday(last_seen_at) IS NOT NULL),
    closed_at    TEXT CHECK (closed_at IS NULL OR julianday(closed_at) IS NOT NULL),
    -- The number of the last flush whose rollups were applied.
    flush_seq    INTEGER NOT NULL DEFAULT 0,
    -- When the epoch's rows of usage_totals became part of the epoch 'compacted'.
    compacted_at TEXT CHECK (compacted_at IS NULL OR julianday(compacted_at) IS NOT NULL)
) STRICT;
CREATE INDEX gateway_epochs_open ON gateway_epochs (last_seen_at) WHERE closed_at IS NULL;
CREATE INDEX gateway_epochs_closed ON gateway_epochs (closed_at) WHERE compacted_at IS NULL;

CREATE TABLE usage_totals (
    epoch        TEXT NOT NULL,
    account_id   TEXT NOT NULL CHECK (length(CAST(account_id AS BLOB)) BETWEEN 1 AND 255),
    metric       TEXT NOT NULL,
    period       TEXT NOT NULL CHECK (period IN ('day', 'month', 'billing', 'none')),
    -- Of a level ('none') 1970-01-01, and period_end is null.
    period_start TEXT NOT NULL CHECK (julianday(period_start) IS NOT NULL),
    period_end   TEXT CHECK (period_end IS NULL OR julianday(period_end) IS NOT NULL),
    spent        INTEGER NOT NULL CHECK (spent >= 0),
    refunded     INTEGER NOT NULL CHECK (refunded >= 0),
    PRIMARY KEY (epoch, account_id, metric, period, period_start)
) STRICT;
CREATE INDEX usage_totals_account ON usage_totals (account_id, metric, period, period_start);

-- The level of an account is value - counted + what usage_totals hold now:
-- counted is what they held when the value was set, kept by a trigger.
CREATE TABLE usage_levels (
    account_id  TEXT NOT NULL CHECK (length(CAST(account_id AS BLOB)) BETWEEN 1 AND 255),
    metric      TEXT NOT NULL CHECK (metric GLOB '[a-z0-9]*' AND metric NOT GLOB '*[^a-z0-9_-]*' AND length(metric) <= 64),
    value       INTEGER NOT NULL CHECK (value BETWEEN 0 AND 9007199254740992),
    measured_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f000Z', 'now')) CHECK (julianday(measured_at) IS NOT NULL),
    counted     INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (account_id, metric)
) STRICT;

CREATE TABLE usage_hourly (
    bucket       TEXT NOT NULL CHECK (julianday(bucket) IS NOT NULL),
    account_id   TEXT NOT NULL,
    scope        TEXT NOT NULL,
    decision     TEXT NOT NULL,
    status_class INTEGER NOT NULL CHECK (status_class BETWEEN 0 AND 9),
    requests     INTEGER NOT NULL,
    cost         INTEGER NOT NULL,
    PRIMARY KEY (bucket, account_id, scope, decision, status_class)
) STRICT;
CREATE INDEX usage_hourly_account ON usage_hourly (account_id, bucket);

CREATE TABLE usage_daily (
    bucket       TEXT NOT NULL CHECK (julianday(bucket) IS NOT NULL),
    account_id   TEXT NOT NULL,
    scope        TEXT NOT NULL,
    decision     TEXT NOT NULL,
    status_class INTEGER NOT NULL CHECK (status_class BETWEEN 0 AND 9),
    requests     INTEGER NOT NULL,
    cost         INTEGER NOT NULL,
    PRIMARY KEY (bucket, account_id, scope, decision, status_class)
) STRICT;
CREATE INDEX usage_daily_account ON usage_daily (account_id, bucket);

CREATE TABLE quota_notifications (
    account_id   TEXT NOT NULL,
    metric       TEXT NOT NULL,
    period_start TEXT NOT NULL CHECK (julianday(period_start) IS NOT NULL),
    threshold    INTEGER NOT NULL CHECK (threshold BETWEEN 1 AND 100),
    limit_value  INTEGER NOT NULL,
    created_at   TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f000Z', 'now')) CHECK (julianday(created_at) IS NOT NULL),
    PRIMARY KEY (account_id, metric, period_start, threshold, limit_value)
) STRICT;

CREATE TABLE user_controls (
    user_id            TEXT NOT NULL PRIMARY KEY CHECK (length(CAST(user_id AS BLOB)) BETWEEN 1 AND 255),
    state              TEXT NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'suspended', 'deleted')),
    previous_status    TEXT,
    reason             TEXT,
    until              TEXT CHECK (until IS NULL OR julianday(until) IS NOT NULL),
    tokens_valid_after TEXT CHECK (tokens_valid_after IS NULL OR julianday(tokens_valid_after) IS NOT NULL),
    original_email     TEXT,
    purge_after        TEXT CHECK (purge_after IS NULL OR julianday(purge_after) IS NOT NULL),
    updated_by         TEXT,
    updated_at         TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f000Z', 'now')) CHECK (julianday(updated_at) IS NOT NULL)
) STRICT;

CREATE TABLE revoked_sessions (
    session_id TEXT NOT NULL PRIMARY KEY,
    user_id    TEXT NOT NULL CHECK (length(CAST(user_id AS BLOB)) BETWEEN 1 AND 255),
    revoked_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f000Z', 'now')) CHECK (julianday(revoked_at) IS NOT NULL)
) STRICT;
CREATE INDEX revoked_sessions_user ON revoked_sessions (user_id);

CREATE TABLE admins (
    user_id    TEXT NOT NULL PRIMARY KEY CHECK (length(CAST(user_id AS BLOB)) BETWEEN 1 AND 255),
    role       TEXT NOT NULL DEFAULT 'superadmin' CHECK (role IN ('superadmin')),
    granted_by TEXT,
    granted_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f000Z', 'now')) CHECK (julianday(granted_at) IS NOT NULL)
) STRICT;

CREATE TABLE changes (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    subject    TEXT NOT NULL,
    version    INTEGER NOT NULL DEFAULT 0,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f000Z', 'now')) CHECK (julianday(created_at) IS NOT NULL)
) STRICT;

CREATE TABLE leases (
    name       TEXT NOT NULL PRIMARY KEY,
    holder     TEXT NOT NULL,
    expires_at TEXT NOT NULL CHECK (julianday(expires_at) IS NOT NULL)
) STRICT;

-- +goose Down
DROP TABLE leases;
DROP TABLE changes;
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
