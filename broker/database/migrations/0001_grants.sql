-- oldest-release: 1
-- The sealed grants, their access tokens, and what is still to be told to Google.
-- migrate:up
CREATE TABLE grants (
    id uuid PRIMARY KEY,
    user_id text NOT NULL CHECK (char_length(user_id) BETWEEN 1 AND 255),
    google_sub text NOT NULL CHECK (char_length(google_sub) BETWEEN 1 AND 255),
    email text NOT NULL,
    client_id text NOT NULL,
    scopes text[] NOT NULL,
    status text NOT NULL
        CHECK (status IN ('active', 'pending_confirmation', 'reauthorization_required', 'revoked')),
    reason text,
    is_default boolean NOT NULL DEFAULT false,
    version bigint NOT NULL DEFAULT 1,
    sealed_refresh_token bytea,
    refresh_token_key_id text,
    connected_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    last_used_at timestamptz,
    UNIQUE (user_id, google_sub),
    CHECK ((sealed_refresh_token IS NULL) = (refresh_token_key_id IS NULL)),
    CHECK (status <> 'revoked' OR (sealed_refresh_token IS NULL AND NOT is_default))
);
COMMENT ON COLUMN grants.client_id IS 'the OAuth client that the refresh token belongs to';
COMMENT ON COLUMN grants.version IS
    'raised whenever the refresh token or the status changes; a writer that saw an older one loses';
CREATE UNIQUE INDEX grants_one_default ON grants (user_id) WHERE is_default;
CREATE INDEX grants_google_sub ON grants (google_sub);
CREATE INDEX grants_status ON grants (status);

CREATE TABLE access_tokens (
    grant_id uuid NOT NULL REFERENCES grants ON DELETE CASCADE,
    scope_set text NOT NULL,
    scopes text[] NOT NULL,
    sealed_access_token bytea NOT NULL,
    access_token_key_id text NOT NULL,
    obtained_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (grant_id, scope_set)
);
COMMENT ON COLUMN access_tokens.scope_set IS
    'what was asked of Google, sorted, spaces between; tokens are held apart per set';
COMMENT ON COLUMN access_tokens.scopes IS 'what Google said the token carries';

CREATE TABLE pending_revocations (
    id uuid PRIMARY KEY,
    google_sub text NOT NULL,
    sealed_token bytea NOT NULL,
    token_key_id text NOT NULL,
    origin text NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX pending_revocations_due ON pending_revocations (next_attempt_at);
CREATE INDEX pending_revocations_sub ON pending_revocations (google_sub);
-- migrate:down
DROP TABLE pending_revocations;
DROP TABLE access_tokens;
DROP TABLE grants;
