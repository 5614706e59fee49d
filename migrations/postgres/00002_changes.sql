-- Every change that concerns an entitlement, by code or by hand, writes its row
-- of changes in its own transaction. The triggers are deferred to the commit: the
-- lock that makes seq order the commit order is then taken last and held briefly,
-- and no transaction waits for a row while it holds it.

-- +goose Up
-- +goose StatementBegin
CREATE FUNCTION note_change(changed TEXT) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    n BIGINT;
BEGIN
    PERFORM pg_advisory_xact_lock(8103507214629712740);
    n := nextval('quotagate.changes_seq');
    INSERT INTO quotagate.changes (seq, subject, version, created_at) VALUES (n, changed, n, clock_timestamp());
    PERFORM pg_notify('quotagate_changes', n::text);
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION note_account(account TEXT) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    known TEXT;
BEGIN
    SELECT kind INTO known FROM quotagate.accounts WHERE id = account;
    -- Of an account that was never seen nobody knows the kind: both are told.
    IF known IS DISTINCT FROM 'org' THEN
        PERFORM quotagate.note_change('user:' || account);
    END IF;
    IF known IS DISTINCT FROM 'user' THEN
        PERFORM quotagate.note_change('org:' || account);
    END IF;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION account_row_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        PERFORM quotagate.note_account(OLD.account_id);
    END IF;
    IF TG_OP = 'INSERT' OR (TG_OP = 'UPDATE' AND NEW.account_id <> OLD.account_id) THEN
        PERFORM quotagate.note_account(NEW.account_id);
    END IF;
    RETURN NULL;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION user_row_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        PERFORM quotagate.note_change('user:' || OLD.user_id);
    END IF;
    IF TG_OP = 'INSERT' OR (TG_OP = 'UPDATE' AND NEW.user_id <> OLD.user_id) THEN
        PERFORM quotagate.note_change('user:' || NEW.user_id);
    END IF;
    RETURN NULL;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION plan_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        PERFORM quotagate.note_change('*');
    ELSIF TG_OP = 'INSERT' AND NEW.is_default THEN
        PERFORM quotagate.note_change('*');
    ELSIF TG_OP = 'UPDATE' AND (NEW.is_default <> OLD.is_default OR NEW.id <> OLD.id) THEN
        PERFORM quotagate.note_change('*');
    ELSE
        PERFORM quotagate.note_change('plan:' || NEW.id);
    END IF;
    RETURN NULL;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION plan_quota_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- In which periods a metric is counted follows from all plans together: only
    -- a new limit or status stays within its plan.
    IF TG_OP = 'UPDATE' AND NEW.plan_id = OLD.plan_id AND NEW.metric = OLD.metric AND NEW.period = OLD.period THEN
        PERFORM quotagate.note_change('plan:' || NEW.plan_id);
    ELSE
        PERFORM quotagate.note_change('*');
    END IF;
    RETURN NULL;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION table_emptied() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM quotagate.note_change('*');
    RETURN NULL;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION level_set() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    SELECT COALESCE(SUM(spent - refunded), 0) INTO NEW.counted
    FROM quotagate.usage_totals
    WHERE account_id = NEW.account_id AND metric = NEW.metric AND period = 'none';
    RETURN NEW;
END
$$;
-- +goose StatementEnd

CREATE TRIGGER usage_levels_counted BEFORE INSERT OR UPDATE OF value, account_id, metric ON usage_levels
    FOR EACH ROW EXECUTE FUNCTION level_set();

CREATE CONSTRAINT TRIGGER subscriptions_changed AFTER INSERT OR UPDATE OR DELETE ON subscriptions
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION account_row_changed();
CREATE CONSTRAINT TRIGGER quota_overrides_changed AFTER INSERT OR UPDATE OR DELETE ON quota_overrides
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION account_row_changed();
CREATE CONSTRAINT TRIGGER rate_limit_overrides_changed AFTER INSERT OR UPDATE OR DELETE ON rate_limit_overrides
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION account_row_changed();
CREATE CONSTRAINT TRIGGER usage_levels_changed AFTER INSERT OR UPDATE OR DELETE ON usage_levels
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION account_row_changed();
CREATE CONSTRAINT TRIGGER user_controls_changed AFTER INSERT OR UPDATE OR DELETE ON user_controls
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION user_row_changed();
CREATE CONSTRAINT TRIGGER revoked_sessions_changed AFTER INSERT OR UPDATE OR DELETE ON revoked_sessions
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION user_row_changed();
CREATE CONSTRAINT TRIGGER subscription_plans_changed AFTER INSERT OR UPDATE OR DELETE ON subscription_plans
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION plan_changed();
CREATE CONSTRAINT TRIGGER plan_quotas_changed AFTER INSERT OR UPDATE OR DELETE ON plan_quotas
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION plan_quota_changed();

CREATE TRIGGER subscriptions_emptied AFTER TRUNCATE ON subscriptions EXECUTE FUNCTION table_emptied();
CREATE TRIGGER quota_overrides_emptied AFTER TRUNCATE ON quota_overrides EXECUTE FUNCTION table_emptied();
CREATE TRIGGER rate_limit_overrides_emptied AFTER TRUNCATE ON rate_limit_overrides EXECUTE FUNCTION table_emptied();
CREATE TRIGGER usage_levels_emptied AFTER TRUNCATE ON usage_levels EXECUTE FUNCTION table_emptied();
CREATE TRIGGER user_controls_emptied AFTER TRUNCATE ON user_controls EXECUTE FUNCTION table_emptied();
CREATE TRIGGER revoked_sessions_emptied AFTER TRUNCATE ON revoked_sessions EXECUTE FUNCTION table_emptied();
CREATE TRIGGER subscription_plans_emptied AFTER TRUNCATE ON subscription_plans EXECUTE FUNCTION table_emptied();
CREATE TRIGGER plan_quotas_emptied AFTER TRUNCATE ON plan_quotas EXECUTE FUNCTION table_emptied();

-- +goose Down
DROP FUNCTION table_emptied() CASCADE;
DROP FUNCTION plan_quota_changed() CASCADE;
DROP FUNCTION plan_changed() CASCADE;
DROP FUNCTION user_row_changed() CASCADE;
DROP FUNCTION account_row_changed() CASCADE;
DROP FUNCTION level_set() CASCADE;
DROP FUNCTION note_account(TEXT);
DROP FUNCTION note_change(TEXT);
