-- oldest-release: 4
-- Seals the audit trail, a batch of records at a time, into one chain that shows any later change.
-- migrate:up
ALTER TABLE audit_events ADD COLUMN batch bigint;
COMMENT ON COLUMN audit_events.batch IS
    'with which records it was written and sealed; empty if by a release before seals';
CREATE INDEX audit_events_batch ON audit_events (batch) WHERE batch IS NOT NULL;

CREATE TABLE audit_seals (
    number bigint PRIMARY KEY,
    batch bigint NOT NULL UNIQUE,
    records integer NOT NULL,
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    digest bytea NOT NULL,
    previous_mac bytea NOT NULL,
    key_id text NOT NULL,
    mac bytea NOT NULL
);
COMMENT ON COLUMN audit_seals.number IS 'one more than the seal before, among all replicas';
COMMENT ON COLUMN audit_seals.digest IS 'SHA-256 of the batch''s lines, as COPY took them';

CREATE TABLE audit_checkpoints (
    number bigint PRIMARY KEY,
    seal_mac bytea NOT NULL,
    began_at timestamptz NOT NULL,
    until timestamptz NOT NULL,
    records bigint NOT NULL,
    faults bigint NOT NULL,
    key_id text NOT NULL,
    mac bytea NOT NULL
);
COMMENT ON TABLE audit_checkpoints IS
    'what retention leaves of the seals that it deleted: the last one''s number and mac, signed';

-- The next seal must follow the newest, so whoever asks for it keeps the others waiting until the
-- end of the transaction; a replica that is cut off meanwhile, for three seconds at most.
CREATE FUNCTION audit_head(own_number bigint, own_mac bytea)
RETURNS TABLE (number bigint, mac bytea, holds_own boolean) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('idle_in_transaction_session_timeout', '3s', true);
    PERFORM pg_advisory_xact_lock(7305417120);
    RETURN QUERY
        WITH chain AS (
            SELECT s.number, s.mac FROM audit_seals s
            UNION ALL SELECT c.number, c.seal_mac FROM audit_checkpoints c
        )
        SELECT h.number, h.mac, own_number IS NULL
            OR own_number < (SELECT max(c.number) FROM audit_checkpoints c)
            OR EXISTS (SELECT FROM chain o WHERE o.number = own_number AND o.mac = own_mac)
        FROM (SELECT 0 AS number, NULL::bytea AS mac UNION ALL SELECT * FROM chain) h
        ORDER BY h.number DESC LIMIT 1;
END
$$;

-- Against accidents; whoever goes round it is found by the seals.
CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('broker.audit_purge', true) = 'on' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'the audit trail is append-only: % of % is refused', TG_OP, TG_TABLE_NAME
        USING HINT = 'BROKER_AUDIT_RETENTION_DAYS has old records deleted.';
END
$$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_seals
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_checkpoints
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();
-- migrate:down
DROP TABLE audit_checkpoints;
DROP TABLE audit_seals;
DROP TRIGGER append_only ON audit_events;
DROP FUNCTION refuse_audit_change();
DROP FUNCTION audit_head(bigint, bytea);
DROP INDEX audit_events_batch;
ALTER TABLE audit_events DROP COLUMN batch;
