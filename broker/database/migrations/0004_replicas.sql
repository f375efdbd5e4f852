-- oldest-release: 3
-- What replicas tell each other: which grants changed, and who is refreshing which token.
-- migrate:up
ALTER TABLE grants ADD COLUMN changed_at timestamptz NOT NULL DEFAULT clock_timestamp();
COMMENT ON COLUMN grants.changed_at IS
    'when its version was last raised, by the clock of the database: replicas that missed the '
    'notice find the change by it';
CREATE INDEX grants_changed_at ON grants (changed_at);

-- In the database, so that no writer can forget it, nor one of an older release.
CREATE FUNCTION note_grant_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.changed_at := clock_timestamp();
    PERFORM pg_notify('broker_grants', NEW.id || ' ' || NEW.version || ' ' || NEW.user_id);
    RETURN NEW;
END
$$;
CREATE TRIGGER grants_inserted BEFORE INSERT ON grants
    FOR EACH ROW EXECUTE FUNCTION note_grant_change();
CREATE TRIGGER grants_changed BEFORE UPDATE ON grants
    FOR EACH ROW WHEN (NEW.version IS DISTINCT FROM OLD.version)
    EXECUTE FUNCTION note_grant_change();

ALTER TABLE pending_revocations ADD COLUMN claimed_until timestamptz;
COMMENT ON COLUMN pending_revocations.claimed_until IS
    'while Google is being told: a consent that came just now would be ended by it';

CREATE TABLE refresh_leases (
    grant_id uuid NOT NULL REFERENCES grants ON DELETE CASCADE,
    scope_set text NOT NULL,
    fence bigint NOT NULL,
    ends_at timestamptz NOT NULL,
    trouble text,
    PRIMARY KEY (grant_id, scope_set)
);
COMMENT ON COLUMN refresh_leases.fence IS
    'raised by each holder; what an earlier holder still writes is refused';
COMMENT ON COLUMN refresh_leases.ends_at IS
    'by the clock that all replicas share; until then nobody else asks Google';
COMMENT ON COLUMN refresh_leases.trouble IS
    'why the last holder failed, while ends_at keeps everybody waiting; empty while it is asking';
-- migrate:down
DROP TABLE refresh_leases;
ALTER TABLE pending_revocations DROP COLUMN claimed_until;
DROP TRIGGER grants_changed ON grants;
DROP TRIGGER grants_inserted ON grants;
DROP FUNCTION note_grant_change();
DROP INDEX grants_changed_at;
ALTER TABLE grants DROP COLUMN changed_at;
