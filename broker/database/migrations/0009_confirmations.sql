-- oldest-release: 4
-- Consents that wait for their caller's confirmation, apart from the grants that work.
-- migrate:up
ALTER TABLE connect_links ADD COLUMN confirm boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN connect_links.confirm IS
    'what is consented to counts once the caller has sent the code that the browser brought back';

ALTER TABLE consent_transactions ADD COLUMN asked_scopes text[];
COMMENT ON COLUMN consent_transactions.asked_scopes IS
    'what Google was asked for: the link''s scopes, and those that the account has granted before; '
    'empty in trips that a release before this one began';

CREATE TABLE pending_consents (
    link_id uuid PRIMARY KEY,
    caller text NOT NULL,
    user_id text NOT NULL CHECK (char_length(user_id) BETWEEN 1 AND 255),
    google_sub text NOT NULL CHECK (char_length(google_sub) BETWEEN 1 AND 255),
    email text NOT NULL,
    client_id text NOT NULL,
    scopes text[] NOT NULL,
    seen_version bigint,
    sealed_refresh_token bytea,
    refresh_token_key_id text,
    sealed_access_token bytea,
    access_token_key_id text,
    access_scopes text[],
    access_obtained_at timestamptz,
    access_expires_at timestamptz,
    code_hash bytea NOT NULL,
    wrong_codes integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    CHECK ((sealed_refresh_token IS NULL) = (refresh_token_key_id IS NULL)),
    CHECK ((sealed_access_token IS NULL) = (access_token_key_id IS NULL))
);
COMMENT ON COLUMN pending_consents.seen_version IS
    'of the active grant that the user had for this account when it was consented to; empty if none';
COMMENT ON COLUMN pending_consents.code_hash IS
    'SHA-256 of the confirmation code, together with the link and the caller';
CREATE INDEX pending_consents_user ON pending_consents (user_id);
CREATE INDEX pending_consents_sub ON pending_consents (google_sub);
CREATE INDEX pending_consents_expires_at ON pending_consents (expires_at);
-- migrate:down
DROP TABLE pending_consents;
ALTER TABLE consent_transactions DROP COLUMN asked_scopes;
ALTER TABLE connect_links DROP COLUMN confirm;
