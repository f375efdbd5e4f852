-- oldest-release: 4
-- An event finds the token of a consent that waits, too; and one that may be about a token that was
-- given up shortly before is told from one that can't be.
-- migrate:up
ALTER TABLE pending_consents
    ADD COLUMN lookup_key_id text,
    ADD COLUMN lookup_prefix bytea,
    ADD COLUMN lookup_digest bytea,
    ADD CHECK ((lookup_key_id IS NULL) = (lookup_prefix IS NULL)
               AND (lookup_key_id IS NULL) = (lookup_digest IS NULL));
COMMENT ON COLUMN pending_consents.lookup_key_id IS
    'empty where there is no refresh token, or while the values are still to be made';
COMMENT ON COLUMN pending_consents.lookup_prefix IS
    'HMAC of the refresh token''s first 16 characters, as in refresh_token_lookups';
COMMENT ON COLUMN pending_consents.lookup_digest IS
    'HMAC of SHA-512 of SHA-512 of the refresh token, as in refresh_token_lookups';
CREATE INDEX pending_consents_lookup_prefix ON pending_consents (lookup_prefix);
CREATE INDEX pending_consents_lookup_digest ON pending_consents (lookup_digest);

CREATE TABLE given_up_tokens (
    google_sub text PRIMARY KEY CHECK (char_length(google_sub) BETWEEN 1 AND 255),
    given_up_at timestamptz NOT NULL
);
COMMENT ON TABLE given_up_tokens IS
    'when a refresh token of an account was last revoked or replaced by another consent: for a while '
    'an event that comes may be about that one';
CREATE INDEX given_up_tokens_given_up_at ON given_up_tokens (given_up_at);
-- migrate:down
DROP TABLE given_up_tokens;
ALTER TABLE pending_consents
    DROP COLUMN lookup_key_id,
    DROP COLUMN lookup_prefix,
    DROP COLUMN lookup_digest;
