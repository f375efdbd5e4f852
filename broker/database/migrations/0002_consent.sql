-- oldest-release: 1
-- Connect links, and the trips to Google that they start.
-- migrate:up
CREATE TABLE connect_links (
    id uuid PRIMARY KEY,
    caller text NOT NULL,
    user_id text NOT NULL CHECK (char_length(user_id) BETWEEN 1 AND 255),
    scopes text[] NOT NULL,
    redirect_uri text NOT NULL,
    return_to text,
    login_hint text,
    browser_hash bytea,
    force_consent boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    completed_at timestamptz
);
COMMENT ON COLUMN connect_links.browser_hash IS
    'SHA-256 of the cookie of the browser that opened the link first; no other may go on with it';
COMMENT ON COLUMN connect_links.force_consent IS
    'Google sent no refresh token and none is held: the next trip asks with prompt=consent';
CREATE INDEX connect_links_expires_at ON connect_links (expires_at);

CREATE TABLE consent_transactions (
    state_hash bytea PRIMARY KEY,
    link_id uuid NOT NULL REFERENCES connect_links ON DELETE CASCADE,
    browser_hash bytea NOT NULL,
    consent_prompted boolean NOT NULL,
    sealed_secrets bytea NOT NULL,
    secrets_key_id text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);
COMMENT ON COLUMN consent_transactions.sealed_secrets IS 'the PKCE verifier and the nonce';
CREATE INDEX consent_transactions_link_id ON consent_transactions (link_id);
CREATE INDEX consent_transactions_expires_at ON consent_transactions (expires_at);
-- migrate:down
DROP TABLE consent_transactions;
DROP TABLE connect_links;
