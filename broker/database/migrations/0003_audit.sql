-- oldest-release: 1
-- Who got whose token, when, with which scopes, and why was it refused.
-- migrate:up
CREATE TABLE audit_events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL,
    action text NOT NULL,
    outcome text NOT NULL,
    caller text,
    user_id text,
    account_sub text,
    scopes text[],
    request_id text
);
CREATE INDEX audit_events_user ON audit_events (user_id, at);
CREATE INDEX audit_events_at ON audit_events (at);
-- migrate:down
DROP TABLE audit_events;
