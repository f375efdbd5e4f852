-- oldest-release: 4
-- What the product is to be told of grants: one row a change of status, until it was told.
-- migrate:up
CREATE TABLE webhook_events (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    number bigint GENERATED ALWAYS AS IDENTITY,
    type text NOT NULL CHECK (type IN (
        'grant.connected', 'grant.reauthorization_required', 'grant.recovered', 'grant.revoked'
    )),
    grant_id uuid NOT NULL,
    user_id text NOT NULL,
    google_sub text NOT NULL,
    scopes text[] NOT NULL,
    status text NOT NULL,
    reason text,
    happened_at timestamptz NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT '-infinity',
    last_failure text,
    given_up_at timestamptz
);
COMMENT ON COLUMN webhook_events.id IS 'the receiver knows a repetition by it';
COMMENT ON COLUMN webhook_events.number IS
    'the order of one grant''s changes: each was made while its row was locked';
COMMENT ON COLUMN webhook_events.attempts IS
    'raised by each claim; what an earlier claimant still writes is refused';
COMMENT ON COLUMN webhook_events.next_attempt_at IS
    'while somebody is sending it: when others may; at first, long ago';
CREATE INDEX webhook_events_due ON webhook_events (next_attempt_at, number)
    WHERE given_up_at IS NULL;
CREATE INDEX webhook_events_grant ON webhook_events (grant_id, number) WHERE given_up_at IS NULL;
CREATE INDEX webhook_events_happened_at ON webhook_events (happened_at);

-- In the database, so that no writer can forget it, nor one of an older release; and in the
-- change's own transaction, so that neither is there without the other.
CREATE FUNCTION note_webhook_event() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    type text;
    before text := 'revoked';
BEGIN
    IF TG_OP = 'UPDATE' THEN
        before := OLD.status;
    END IF;
    type := CASE
        WHEN NEW.status = 'active' AND before = 'reauthorization_required' THEN 'grant.recovered'
        WHEN NEW.status = 'active' THEN 'grant.connected'
        WHEN NEW.status = 'reauthorization_required' THEN 'grant.reauthorization_required'
        -- What was never confirmed was never connected.
        WHEN NEW.status = 'revoked' AND before IN ('active', 'reauthorization_required')
            THEN 'grant.revoked'
    END;
    IF type IS NOT NULL THEN
        INSERT INTO webhook_events
            (type, grant_id, user_id, google_sub, scopes, status, reason, happened_at)
        VALUES (type, NEW.id, NEW.user_id, NEW.google_sub, NEW.scopes, NEW.status, NEW.reason,
                NEW.updated_at);
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER grants_status_begun AFTER INSERT ON grants
    FOR EACH ROW EXECUTE FUNCTION note_webhook_event();
CREATE TRIGGER grants_status_changed AFTER UPDATE ON grants
    FOR EACH ROW WHEN (NEW.status IS DISTINCT FROM OLD.status)
    EXECUTE FUNCTION note_webhook_event();
-- migrate:down
DROP TRIGGER grants_status_changed ON grants;
DROP TRIGGER grants_status_begun ON grants;
DROP FUNCTION note_webhook_event();
DROP TABLE webhook_events;
