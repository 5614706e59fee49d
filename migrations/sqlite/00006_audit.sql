-- +goose Up
-- What was done, by whom, to what: append-only, and chained by hashes, so that a
-- row that is altered, removed, inserted or moved by hand is found. Of columns
-- that are empty the text is empty, never null: there is one way to say nothing.
CREATE TABLE audit_events (
    seq             INTEGER NOT NULL PRIMARY KEY CHECK (seq > 0),
    id              TEXT NOT NULL UNIQUE,
    actor_type      TEXT NOT NULL CHECK (actor_type <> ''),
    actor_id        TEXT NOT NULL DEFAULT '',
    actor_label     TEXT NOT NULL DEFAULT '',
    impersonator_id TEXT NOT NULL DEFAULT '',
    action          TEXT NOT NULL CHECK (action <> ''),
    resource_type   TEXT NOT NULL DEFAULT '',
    resource_id     TEXT NOT NULL DEFAULT '',
    account_id      TEXT NOT NULL DEFAULT '',
    outcome         TEXT NOT NULL CHECK (outcome <> ''),
    reason          TEXT NOT NULL DEFAULT '',
    changes         TEXT NOT NULL DEFAULT '{}',
    metadata        TEXT NOT NULL DEFAULT '{}',
    ip_address      TEXT NOT NULL DEFAULT '',
    user_agent      TEXT NOT NULL DEFAULT '',
    request_id      TEXT NOT NULL DEFAULT '',
    prev_hash       TEXT NOT NULL,
    hash            TEXT NOT NULL,
    created_at      TEXT NOT NULL CHECK (julianday(created_at) IS NOT NULL)
) STRICT;
CREATE INDEX audit_events_created ON audit_events (created_at);
CREATE INDEX audit_events_account ON audit_events (account_id, seq);
CREATE INDEX audit_events_actor ON audit_events (actor_id, seq);
CREATE INDEX audit_events_action ON audit_events (action, seq);

-- The newest event.
CREATE TABLE audit_head (
    id   INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    seq  INTEGER NOT NULL,
    hash TEXT NOT NULL
) STRICT;
INSERT INTO audit_head (id, seq, hash) VALUES (1, 0, '0000000000000000000000000000000000000000000000000000000000000000');

-- +goose StatementBegin
CREATE TRIGGER audit_events_not_altered BEFORE UPDATE ON audit_events
BEGIN
    SELECT RAISE(ABORT, 'audit_events is append-only');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER audit_events_not_removed BEFORE DELETE ON audit_events
-- Retention alone removes rows, and says so first in a row of its own.
WHEN NOT EXISTS (SELECT 1 FROM audit_events c WHERE c.action = 'audit.checkpoint'
    AND c.seq > OLD.seq AND CAST(c.resource_id AS INTEGER) >= OLD.seq)
BEGIN
    SELECT RAISE(ABORT, 'audit_events is append-only');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER audit_events_not_replaced BEFORE INSERT ON audit_events
-- INSERT OR REPLACE removes a row without telling the trigger above.
WHEN EXISTS (SELECT 1 FROM audit_events c WHERE c.seq = NEW.seq OR c.id = NEW.id)
BEGIN
    SELECT RAISE(ABORT, 'audit_events is append-only');
END;
-- +goose StatementEnd

-- What others are to be told of, written in the transaction of what it tells.
CREATE TABLE outbox_events (
    id           TEXT NOT NULL PRIMARY KEY,
    event_type   TEXT NOT NULL CHECK (event_type <> ''),
    account_id   TEXT NOT NULL DEFAULT '',
    payload      TEXT NOT NULL DEFAULT '{}',
    created_at   TEXT NOT NULL CHECK (julianday(created_at) IS NOT NULL),
    published_at TEXT CHECK (published_at IS NULL OR julianday(published_at) IS NOT NULL)
) STRICT;
CREATE INDEX outbox_events_pending ON outbox_events (id) WHERE published_at IS NULL;
CREATE INDEX outbox_events_created ON outbox_events (created_at);

-- Requests that carry an Idempotency-Key: status is 0 until they are answered.
CREATE TABLE idempotency_keys (
    owner           TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    request_hash    TEXT NOT NULL,
    holder          TEXT NOT NULL,
    locked_until    TEXT NOT NULL CHECK (julianday(locked_until) IS NOT NULL),
    -- Set in the transaction of what the request does: it must not be done again,
    -- whatever becomes of its answer.
    committed_at    TEXT CHECK (committed_at IS NULL OR julianday(committed_at) IS NOT NULL),
    status          INTEGER NOT NULL DEFAULT 0,
    headers         TEXT NOT NULL DEFAULT '{}',
    body            TEXT NOT NULL DEFAULT '',
    created_at      TEXT NOT NULL CHECK (julianday(created_at) IS NOT NULL),
    PRIMARY KEY (owner, idempotency_key)
) STRICT;
CREATE INDEX idempotency_keys_created ON idempotency_keys (created_at);

-- +goose Down
DROP TABLE idempotency_keys;
DROP TABLE outbox_events;
DROP TABLE audit_head;
DROP TABLE audit_events;
