-- The roles of Quotagate, with what each needs and no more:
--
--   quotagate_owner      owns the schema and migrates it (caddy quota migrate up)
--   quotagate_gateway    judges requests and records usage
--   quotagate_companion  administers: plans, subscriptions, users, billing
--
-- Run it as a superuser in the database of the backends: before the first
-- `caddy quota migrate up`, and again after each one, since what is granted on
-- tables needs the tables. It may be run as often as you like, also while gateways
-- work: it is one transaction, after which the roles have what stands here.
--
--   psql -v ON_ERROR_STOP=1 -d app -f roles.sql
--   psql -d app -c '\password quotagate_gateway'     (and the others)
--
-- A process that is gateway and companion in one uses quotagate_companion.
-- What the backends' own tables are called stands at the end: change it there.

BEGIN;

DO $roles$
DECLARE
    name TEXT;
BEGIN
    FOREACH name IN ARRAY ARRAY['quotagate_owner', 'quotagate_gateway', 'quotagate_companion'] LOOP
        IF NOT EXISTS (SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = name) THEN
            EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS', name);
        END IF;
        -- Our statements name no schema. As the role's own setting it needs not be
        -- set on each connection, which a pooler may lend to others.
        EXECUTE format('ALTER ROLE %I IN DATABASE %I SET search_path = quotagate', name, current_database());
        -- Likewise: what a process has locked that is frozen, or cut off, must not stay so.
        EXECUTE format('ALTER ROLE %I IN DATABASE %I SET idle_in_transaction_session_timeout = 5000', name, current_database());
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), name);
    END LOOP;
    IF NOT EXISTS (SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = 'quotagate') THEN
        CREATE SCHEMA quotagate;
    END IF;
    -- Also of what somebody else has migrated before.
    ALTER SCHEMA quotagate OWNER TO quotagate_owner;
    FOR name IN
        SELECT format('ALTER %s %s OWNER TO quotagate_owner',
            CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::regclass)
        FROM pg_catalog.pg_class c
        WHERE c.relnamespace = 'quotagate'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'S')
            AND pg_catalog.pg_get_userbyid(c.relowner) <> 'quotagate_owner'
            -- A sequence that belongs to a column goes with its table.
            AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend d
                WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i') AND c.relkind = 'S')
        UNION ALL
        SELECT format('ALTER FUNCTION %s OWNER TO quotagate_owner', p.oid::regprocedure)
        FROM pg_catalog.pg_proc p
        WHERE p.pronamespace = 'quotagate'::regnamespace AND pg_catalog.pg_get_userbyid(p.proowner) <> 'quotagate_owner'
    LOOP
        EXECUTE name;
    END LOOP;
    REVOKE ALL ON SCHEMA quotagate FROM PUBLIC;
    GRANT USAGE ON SCHEMA quotagate TO quotagate_gateway, quotagate_companion;
END
$roles$;

-- What an older file granted and this one does not is taken back.
REVOKE ALL ON ALL TABLES IN SCHEMA quotagate FROM quotagate_gateway, quotagate_companion;

-- The companion: all rows, and nothing of the schema itself. Tables that a later
-- migration makes are included.
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA quotagate TO quotagate_companion;
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA quotagate TO quotagate_companion;
ALTER DEFAULT PRIVILEGES FOR ROLE quotagate_owner IN SCHEMA quotagate
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO quotagate_companion;
ALTER DEFAULT PRIVILEGES FOR ROLE quotagate_owner IN SCHEMA quotagate
    GRANT USAGE, SELECT ON SEQUENCES TO quotagate_companion;

DO $migrations$
BEGIN
    IF to_regclass('quotagate.goose_db_version') IS NOT NULL THEN
        REVOKE INSERT, UPDATE, DELETE ON quotagate.goose_db_version FROM quotagate_companion;
    END IF;
    -- What was audited stays as it was written.
    IF to_regclass('quotagate.audit_events') IS NOT NULL THEN
        REVOKE UPDATE ON quotagate.audit_events FROM quotagate_companion;
    END IF;
END
$migrations$;

-- The gateway: reads what a caller may do, writes what was used. It cannot give
-- anybody a plan, and sees no secret of the companion's. Each table stands here,
-- also those that are the companion's alone (NULL).
DO $gateway$
DECLARE
    r RECORD;
BEGIN
    FOR r IN SELECT * FROM (VALUES
        ('goose_db_version', 'SELECT'),
        -- What a caller may do.
        ('subscription_plans', 'SELECT'),
        ('plan_quotas', 'SELECT'),
        ('plan_prices', 'SELECT'),
        ('subscriptions', 'SELECT'),
        ('quota_overrides', 'SELECT'),
        ('rate_limit_overrides', 'SELECT'),
        ('usage_levels', 'SELECT'),
        ('user_controls', 'SELECT (user_id, state, previous_status, reason, until, tokens_valid_after, updated_by, updated_at)'),
        ('revoked_sessions', 'SELECT'),
        ('changes', 'SELECT, DELETE'),
        -- What was used, and by whom.
        ('accounts', 'SELECT (id, kind, email, last_seen_at), INSERT (id, kind, email, first_seen_at, last_seen_at), UPDATE (email, last_seen_at)'),
        ('gateway_epochs', 'SELECT, INSERT, UPDATE'),
        ('usage_totals', 'SELECT, INSERT, UPDATE, DELETE'),
        ('usage_hourly', 'SELECT, INSERT, UPDATE'),
        ('usage_daily', 'SELECT, INSERT, UPDATE'),
        ('quota_notifications', 'SELECT, INSERT'),
        ('outbox_events', 'INSERT'),
        ('leases', 'SELECT, INSERT, UPDATE'),
        -- The companion's.
        ('admins', NULL),
        ('audit_events', NULL),
        ('audit_head', NULL),
        ('idempotency_keys', NULL),
        ('stripe_events', NULL),
        ('stripe_sync_queue', NULL),
        ('stripe_prices', NULL),
        ('checkout_sessions', NULL),
        ('invoices', NULL),
        ('billing_marks', NULL)
    ) AS grants (relation, privileges) LOOP
        IF r.privileges IS NOT NULL AND to_regclass('quotagate.' || r.relation) IS NOT NULL THEN
            EXECUTE format('GRANT %s ON quotagate.%I TO quotagate_gateway', r.privileges, r.relation);
        END IF;
    END LOOP;
END
$gateway$;

-- The backends' own tables, as the option `host` names them: the columns that
-- are there, and of those only what is used.
DO $host$
DECLARE
    r RECORD;
BEGIN
    FOR r IN SELECT g.relation, g.role, g.privilege, string_agg(quote_ident(a.attname), ', ') AS columns
        FROM (VALUES
            ('public.users', 'quotagate_gateway', 'SELECT', ARRAY['id', 'status']),
            ('public.users', 'quotagate_companion', 'SELECT', ARRAY['id', 'email', 'username', 'status', 'created_at']),
            ('public.users', 'quotagate_companion', 'UPDATE', ARRAY['status', 'email']),
            ('public.sessions', 'quotagate_gateway', 'SELECT', ARRAY['id', 'user_id', 'revoked_at']),
            ('public.sessions', 'quotagate_companion', 'SELECT',
                ARRAY['id', 'user_id', 'created_at', 'last_seen_at', 'user_agent', 'ip', 'revoked_at']),
            ('public.sessions', 'quotagate_companion', 'UPDATE', ARRAY['revoked_at'])
        ) AS g (relation, role, privilege, columns)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = to_regclass(g.relation) AND a.attnum > 0
            AND NOT a.attisdropped AND a.attname = ANY (g.columns)
        GROUP BY g.relation, g.role, g.privilege
    LOOP
        EXECUTE format('GRANT %s (%s) ON %s TO %I', r.privilege, r.columns, r.relation, r.role);
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', split_part(r.relation, '.', 1), r.role);
    END LOOP;
END
$host$;

COMMIT;
