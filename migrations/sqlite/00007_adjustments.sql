-- What admins add to usage or take from it stands in usage_totals under an epoch
-- that is no process's. Gateways that hold a counter of it load it anew.

-- +goose Up
-- +goose StatementBegin
CREATE TRIGGER usage_adjusted_inserted AFTER INSERT ON usage_totals WHEN NEW.epoch = 'adjusted'
BEGIN
    INSERT INTO changes (subject) SELECT 'user:' || NEW.account_id
    WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE id = NEW.account_id AND kind = 'org');
    INSERT INTO changes (subject) SELECT 'org:' || NEW.account_id
    WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE id = NEW.account_id AND kind = 'user');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER usage_adjusted_updated AFTER UPDATE ON usage_totals WHEN NEW.epoch = 'adjusted'
BEGIN
    INSERT INTO changes (subject) SELECT 'user:' || NEW.account_id
    WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE id = NEW.account_id AND kind = 'org');
    INSERT INTO changes (subject) SELECT 'org:' || NEW.account_id
    WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE id = NEW.account_id AND kind = 'user');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER usage_adjusted_deleted AFTER DELETE ON usage_totals WHEN OLD.epoch = 'adjusted'
BEGIN
    INSERT INTO changes (subject) SELECT 'user:' || OLD.account_id
    WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE id = OLD.account_id AND kind = 'org');
    INSERT INTO changes (subject) SELECT 'org:' || OLD.account_id
    WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE id = OLD.account_id AND kind = 'user');
END;
-- +goose StatementEnd

-- The newest first is how people look at the users of whom tokens were seen.
CREATE INDEX accounts_users_seen ON accounts (first_seen_at, id) WHERE kind = 'user';

-- +goose Down
DROP INDEX accounts_users_seen;
DROP TRIGGER usage_adjusted_deleted;
DROP TRIGGER usage_adjusted_updated;
DROP TRIGGER usage_adjusted_inserted;
