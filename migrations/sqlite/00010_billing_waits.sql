-- Since when a customer waits to be read, which the attempts to read it do not
-- move; and which customer a page to pay on was opened for.

-- +goose Up
-- Null: everything that is known of was read.
ALTER TABLE stripe_sync_queue ADD COLUMN due_since TEXT CHECK (due_since IS NULL OR julianday(due_since) IS NOT NULL);
UPDATE stripe_sync_queue SET due_since = updated_at WHERE generation > synced_generation;
-- Null: opened before this was kept.
ALTER TABLE checkout_sessions ADD COLUMN customer_id TEXT;

-- +goose Down
ALTER TABLE checkout_sessions DROP COLUMN customer_id;
ALTER TABLE stripe_sync_queue DROP COLUMN due_since;
