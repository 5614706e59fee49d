-- What admins add to usage or take from it stands in usage_totals under an epoch
-- that is no process's. Gateways that hold a counter of it load it anew.

-- +goose Up
CREATE CONSTRAINT TRIGGER usage_adjusted AFTER INSERT OR UPDATE ON usage_totals
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.epoch = 'adjusted') EXECUTE FUNCTION account_row_changed();
CREATE CONSTRAINT TRIGGER usage_adjustment_deleted AFTER DELETE ON usage_totals
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (OLD.epoch = 'adjusted') EXECUTE FUNCTION account_row_changed();

-- The newest first is how people look at the users of whom tokens were seen.
CREATE INDEX accounts_users_seen ON accounts (first_seen_at, id) WHERE kind = 'user';

-- +goose Down
DROP INDEX accounts_users_seen;
DROP TRIGGER usage_adjustment_deleted ON usage_totals;
DROP TRIGGER usage_adjusted ON usage_totals;
