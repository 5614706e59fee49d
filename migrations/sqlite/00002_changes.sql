-- Every change that concerns an entitlement, by code or by hand, writes its row
-- of changes in its own transaction.

-- +goose Up
-- +goose StatementBegin
CREATE TRIGGER changes_version AFTER INSERT ON changes
BEGIN
    UPDATE changes SET version = seq WHERE seq = NEW.seq;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER subscriptions_inserted AFTER INSERT ON subscriptions
BEGIN
    -- Of an account that was never seen nobody knows the kind: both are told.
    INSERT INTO changes (subject) SELECT 'user:' || NEW.account_id
    WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE id = NEW.account_id AND kind = 'org');
    INSERT INTO changes (subject) SELECT 'org:' || NEW.account_id
    WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE id = NEW.account_id AND kind = 'user');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER subscriptions_updated AFTER UPDATE ON subscriptions
BEGIN
    -- Of an account that was never seen nobody knows the kind: both are told.
    INSERT INTO changes (subject) SELECT 'user:' || NEW.account_id
    WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE id = NEW.account_id AND kind = 'org');
    INSERT INTO changes (subject) SELECT 'org:' || NEW.account_id
    WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE id = NEW.account_id AND kind = 'user');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER subscriptions_moved AFTER UPDATE OF account_id ON subscriptions WHEN OLD.account_id <> NEW.account_id
BEGIN
    -- Of an account that was never seen nobody knows the kind: both are told.
    INSERT INTO changes (subject) SELECT 'user:' || OLD.account_id
    WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE id = OLD.account_id AND kind = 'org');
    INSERT INTO changes (subject) SELECT 'org:' || OLD.account_id
    WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE id = OLD.account_id AND kind = 'user');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER subscriptions_deleted AFTER DELETE ON subscriptions
BEGIN
    -- Of an account that was never seen nobody knows the kind: both are told.
    INSERT INTO changes (subject) SELECT 'user:' || OLD.account_id
    WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE id = OLD.account_id AND kind = 'org');
    INSERT INTO changes (subject) SELECT 'org:' || OLD.account_id
    WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE id = OLD.account_id AND kind = 'user');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER quota_overrides_inserted AFTER INSERT ON quota_overrides
BEGIN
    -- Of an account that was never seen nobody knows the kind: both are told.
    INSERT INTO changes (subject) SELECT 'user:' || NEW.account_id
    WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE id = NEW.account_id AND kind = 'org');
    INSERT INTO changes (subject) SELECT 'org:' || NEW.account_id
    WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE id = NEW.account_id AND kind = 'user');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER quota_overrides_updated AFTER UPDATE ON quota_overrides
BEGIN
    -- Of an account that was never seen nobody knows the kind: both are told.
    INSERT INTO changes (subject) SELECT 'user:' || NEW.account_id
    WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE id = NEW.account_id AND kind = 'org');
    INSERT INTO changes (subject) SELECT 'org:' || NEW.account_id
    WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE id = NEW.account_id AND kind = 'user');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER quota_overrides_moved AFTER UPDATE OF account_id ON quota_overrides WHEN OLD.account_id <> NEW.account_id
BEGIN
    -- Of an account that was never seen nobody knows the kind: both are told.
    INSERT INTO changes (subject) SELECT 'user:' || OLD.account_id
    WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE id = OLD.account_id AND kind = 'org');
    INSERT INTO changes (subject) SELECT 'org:' || OLD.account_id
    WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE id = OLD.account_id AND kind = 'user');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER quota_overrides_deleted AFTER DELETE ON quota_overrides
BEGIN
    -- Of an account that was never seen nobody knows the kind: both are told.
    INSERT INTO changes (subject) SELECT 'user:' || OLD.account_id
    WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE id = OLD.account_id AND kind = 'org');
    INSERT INTO changes (subject) SELECT 'org:' || OLD.account_id
    WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE id = OLD.account_id AND kind = 'user');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER rate_limit_overrides_inserted AFTER INSERT ON rate_limit_overrides
BEGIN
    -- Of an account that was never seen nobody knows the kind: both are told.
    INSERT INTO changes (subject) SELECT 'user:' || NEW.account_id
    WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE id = NEW.account_id AND kind = 'org');
    INSERT INTO changes (subject) SELECT 'org:' || NEW.account_id
    WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE id = NEW.account_id AND kind = 'user');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER rate_limit_overrides_updated AFTER UPDATE ON rate_limit_overrides
BEGIN
    -- Of an account that was never seen nobody knows the kind: both are told.
    INSERT INTO changes (subject) SELECT 'user:' || NEW.account_id
    WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE id = NEW.account_id AND kind = 'org');
    INSERT INTO changes (subject) SELECT 'org:' || NEW.account_id
    WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE id = NEW.account_id AND kind = 'user');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER rate_limit_overrides_moved AFTER UPDATE OF account_id ON rate_limit_overrides WHEN OLD.account_id <> NEW.account_id
BEGIN
    -- Of an account that was never seen nobody knows the kind: both are told.
    INSERT INTO changes (subject) SELECT 'user:' || OLD.account_id
    WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE id = OLD.account_id AND kind = 'org');
    INSERT INTO changes (subject) SELECT 'org:' || OLD.account_id
    WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE id = OLD.account_id AND kind = 'user');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER rate_limit_overrides_deleted AFTER DELETE ON rate_limit_overrides
BEGIN
    -- Of an account that was never seen nobody knows the kind: both are told.
    INSERT INTO changes (subject) SELECT 'user:' || OLD.account_id
    WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE id = OLD.account_id AND kind = 'org');
    INSERT INTO changes (subject) SELECT 'org:' || OLD.account_id
    WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE id = OLD.account_id AND kind = 'user');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER usage_levels_inserted AFTER INSERT ON usage_levels
BEGIN
    -- Of an account that was never seen nobody knows the kind: both are told.
    INSERT INTO changes (subject) SELECT 'user:' || NEW.account_id
    WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE id = NEW.account_id AND kind = 'org');
    INSERT INTO changes (subject) SELECT 'org:' || NEW.account_id
    WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE id = NEW.account_id AND kind = 'user');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER usage_levels_updated AFTER UPDATE OF value, measured_at, account_id, metric ON usage_levels
BEGIN
    -- Of an account that was never seen nobody knows the kind: both are told.
    INSERT INTO changes (subject) SELECT 'user:' || NEW.account_id
    WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE id = NEW.account_id AND kind = 'org');
    INSERT INTO changes (subject) SELECT 'org:' || NEW.account_id
    WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE id = NEW.account_id AND kind = 'user');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER usage_levels_moved AFTER UPDATE OF account_id ON usage_levels WHEN OLD.account_id <> NEW.account_id
BEGIN
    -- Of an account that was never seen nobody knows the kind: both are told.
    INSERT INTO changes (subject) SELECT 'user:' || OLD.account_id
    WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE id = OLD.account_id AND kind = 'org');
    INSERT INTO changes (subject) SELECT 'org:' || OLD.account_id
    WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE id = OLD.account_id AND kind = 'user');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER usage_levels_deleted AFTER DELETE ON usage_levels
BEGIN
    -- Of an account that was never seen nobody knows the kind: both are told.
    INSERT INTO changes (subject) SELECT 'user:' || OLD.account_id
    WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE id = OLD.account_id AND kind = 'org');
    INSERT INTO changes (subject) SELECT 'org:' || OLD.account_id
    WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE id = OLD.account_id AND kind = 'user');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER usage_levels_counted_insert AFTER INSERT ON usage_levels
BEGIN
    UPDATE usage_levels SET counted = (
        SELECT COALESCE(SUM(spent - refunded), 0) FROM usage_totals
        WHERE account_id = NEW.account_id AND metric = NEW.metric AND period = 'none')
    WHERE account_id = NEW.account_id AND metric = NEW.metric;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER usage_levels_counted_update AFTER UPDATE OF value, account_id, metric ON usage_levels
BEGIN
    UPDATE usage_levels SET counted = (
        SELECT COALESCE(SUM(spent - refunded), 0) FROM usage_totals
        WHERE account_id = NEW.account_id AND metric = NEW.metric AND period = 'none')
    WHERE account_id = NEW.account_id AND metric = NEW.metric;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER user_controls_inserted AFTER INSERT ON user_controls
BEGIN
    INSERT INTO changes (subject) VALUES ('user:' || NEW.user_id);
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER user_controls_updated AFTER UPDATE ON user_controls
BEGIN
    INSERT INTO changes (subject) VALUES ('user:' || NEW.user_id);
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER user_controls_moved AFTER UPDATE OF user_id ON user_controls WHEN OLD.user_id <> NEW.user_id
BEGIN
    INSERT INTO changes (subject) VALUES ('user:' || OLD.user_id);
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER user_controls_deleted AFTER DELETE ON user_controls
BEGIN
    INSERT INTO changes (subject) VALUES ('user:' || OLD.user_id);
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER revoked_sessions_inserted AFTER INSERT ON revoked_sessions
BEGIN
    INSERT INTO changes (subject) VALUES ('user:' || NEW.user_id);
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER revoked_sessions_updated AFTER UPDATE ON revoked_sessions
BEGIN
    INSERT INTO changes (subject) VALUES ('user:' || NEW.user_id);
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER revoked_sessions_moved AFTER UPDATE OF user_id ON revoked_sessions WHEN OLD.user_id <> NEW.user_id
BEGIN
    INSERT INTO changes (subject) VALUES ('user:' || OLD.user_id);
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER revoked_sessions_deleted AFTER DELETE ON revoked_sessions
BEGIN
    INSERT INTO changes (subject) VALUES ('user:' || OLD.user_id);
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER subscription_plans_inserted AFTER INSERT ON subscription_plans
BEGIN
    INSERT INTO changes (subject) VALUES (CASE WHEN NEW.is_default THEN '*' ELSE 'plan:' || NEW.id END);
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER subscription_plans_updated AFTER UPDATE ON subscription_plans
BEGIN
    INSERT INTO changes (subject)
    VALUES (CASE WHEN NEW.is_default <> OLD.is_default OR NEW.id <> OLD.id THEN '*' ELSE 'plan:' || NEW.id END);
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER subscription_plans_deleted AFTER DELETE ON subscription_plans
BEGIN
    INSERT INTO changes (subject) VALUES ('*');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER plan_quotas_inserted AFTER INSERT ON plan_quotas
BEGIN
    INSERT INTO changes (subject) VALUES ('*');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER plan_quotas_updated AFTER UPDATE ON plan_quotas
BEGIN
    -- In which periods a metric is counted follows from all plans together: only
    -- a new limit or status stays within its plan.
    INSERT INTO changes (subject)
    VALUES (CASE WHEN NEW.plan_id = OLD.plan_id AND NEW.metric = OLD.metric AND NEW.period = OLD.period
        THEN 'plan:' || NEW.plan_id ELSE '*' END);
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER plan_quotas_deleted AFTER DELETE ON plan_quotas
BEGIN
    INSERT INTO changes (subject) VALUES ('*');
END;
-- +goose StatementEnd

-- +goose Down
DROP TRIGGER plan_quotas_deleted;
DROP TRIGGER plan_quotas_updated;
DROP TRIGGER plan_quotas_inserted;
DROP TRIGGER subscription_plans_deleted;
DROP TRIGGER subscription_plans_updated;
DROP TRIGGER subscription_plans_inserted;
DROP TRIGGER revoked_sessions_deleted;
DROP TRIGGER revoked_sessions_moved;
DROP TRIGGER revoked_sessions_updated;
DROP TRIGGER revoked_sessions_inserted;
DROP TRIGGER user_controls_deleted;
DROP TRIGGER user_controls_moved;
DROP TRIGGER user_controls_updated;
DROP TRIGGER user_controls_inserted;
DROP TRIGGER usage_levels_counted_update;
DROP TRIGGER usage_levels_counted_insert;
DROP TRIGGER usage_levels_deleted;
DROP TRIGGER usage_levels_moved;
DROP TRIGGER usage_levels_updated;
DROP TRIGGER usage_levels_inserted;
DROP TRIGGER rate_limit_overrides_deleted;
DROP TRIGGER rate_limit_overrides_moved;
DROP TRIGGER rate_limit_overrides_updated;
DROP TRIGGER rate_limit_overrides_inserted;
DROP TRIGGER quota_overrides_deleted;
DROP TRIGGER quota_overrides_moved;
DROP TRIGGER quota_overrides_updated;
DROP TRIGGER quota_overrides_inserted;
DROP TRIGGER subscriptions_deleted;
DROP TRIGGER subscriptions_moved;
DROP TRIGGER subscriptions_updated;
DROP TRIGGER subscriptions_inserted;
DROP TRIGGER changes_version;
