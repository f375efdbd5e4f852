-- oldest-release: 3
-- The user's own page of connections: who used what last, and the visits to the page.
-- migrate:up
ALTER TABLE grants ADD COLUMN last_used_by text;
COMMENT ON COLUMN grants.last_used_by IS 'the caller that got the token then';

CREATE TABLE connections_visits (
    id uuid PRIMARY KEY,
    caller text NOT NULL,
    user_id text NOT NULL CHECK (char_length(user_id) BETWEEN 1 AND 255),
    return_to text,
    created_at timestamptz NOT NULL,
    link_expires_at timestamptz NOT NULL,
    visitor_hash bytea UNIQUE,
    ends_at timestamptz NOT NULL
);
COMMENT ON COLUMN connections_visits.visitor_hash IS
    'SHA-256 of the cookie of the browser that opened the link; a link opens the page once';
COMMENT ON COLUMN connections_visits.ends_at IS
    'of the link while it is not opened, then of the page';
CREATE INDEX connections_visits_ends_at ON connections_visits (ends_at);
-- migrate:down
DROP TABLE connections_visits;
ALTER TABLE grants DROP COLUMN last_used_by;
