-- oldest-release: 4
-- What Google tells of accounts and tokens: which events came, and how a token that one names is found.
-- migrate:up
CREATE TABLE security_event_tokens (
    jti text PRIMARY KEY CHECK (char_length(jti) BETWEEN 1 AND 255),
    events text[] NOT NULL,
    verification_state text,
    issued_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL
);
COMMENT ON TABLE security_event_tokens IS
    'what has acted already: a token that comes again does nothing';
CREATE INDEX security_event_tokens_received_at ON security_event_tokens (received_at);
CREATE INDEX security_event_tokens_verification ON security_event_tokens (verification_state)
    WHERE verification_state IS NOT NULL;

CREATE TABLE account_states (
    google_sub text PRIMARY KEY CHECK (char_length(google_sub) BETWEEN 1 AND 255),
    is_disabled boolean NOT NULL,
    happened_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL
);
COMMENT ON TABLE account_states IS
    'what was last told of an account: an event that is older but comes later is passed over';
CREATE INDEX account_states_received_at ON account_states (received_at);

CREATE TABLE refresh_token_lookups (
    grant_id uuid PRIMARY KEY REFERENCES grants ON DELETE CASCADE,
    generation bigint NOT NULL DEFAULT 0,
    key_id text NOT NULL DEFAULT '',
    prefix bytea,
    digest bytea,
    CHECK ((key_id = '') = (prefix IS NULL) AND (key_id = '') = (digest IS NULL))
);
COMMENT ON COLUMN refresh_token_lookups.generation IS
    'raised with each refresh token: what was made from an earlier one is not written';
COMMENT ON COLUMN refresh_token_lookups.key_id IS 'empty while the values are still to be made';
COMMENT ON COLUMN refresh_token_lookups.prefix IS
    'HMAC of the refresh token''s first 16 characters; an event may name a token so';
COMMENT ON COLUMN refresh_token_lookups.digest IS
    'HMAC of SHA-512 of SHA-512 of the refresh token; an event may name a token so';
CREATE INDEX refresh_token_lookups_prefix ON refresh_token_lookups (prefix);
CREATE INDEX refresh_token_lookups_digest ON refresh_token_lookups (digest);
CREATE INDEX refresh_token_lookups_key ON refresh_token_lookups (key_id, grant_id);
CREATE INDEX grants_client_id ON grants (client_id);

-- In the database, so that no writer can forget it, nor one of an older release.
CREATE FUNCTION note_refresh_token_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.sealed_refresh_token IS NULL THEN
        DELETE FROM refresh_token_lookups WHERE grant_id = NEW.id;
    ELSE
        INSERT INTO refresh_token_lookups AS held (grant_id) VALUES (NEW.id)
        ON CONFLICT (grant_id) DO UPDATE SET
            generation = held.generation + 1, key_id = '', prefix = NULL, digest = NULL;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER refresh_token_stored AFTER INSERT ON grants
    FOR EACH ROW EXECUTE FUNCTION note_refresh_token_change();
CREATE TRIGGER refresh_token_changed AFTER UPDATE ON grants
    FOR EACH ROW WHEN (NEW.sealed_refresh_token IS DISTINCT FROM OLD.sealed_refresh_token)
    EXECUTE FUNCTION note_refresh_token_change();
INSERT INTO refresh_token_lookups (grant_id)
SELECT id FROM grants WHERE sealed_refresh_token IS NOT NULL;
-- migrate:down
DROP TRIGGER refresh_token_changed ON grants;
DROP TRIGGER refresh_token_stored ON grants;
DROP FUNCTION note_refresh_token_change();
DROP INDEX grants_client_id;
DROP TABLE refresh_token_lookups;
DROP TABLE account_states;
DROP TABLE security_event_tokens;
