-- oldest-release: 4
-- When Google was last told to end what an account had allowed: a consent whose code was exchanged
-- before that has ended with it. Both times are by the clock of the database.
-- migrate:up
ALTER TABLE given_up_tokens ADD COLUMN revoked_at timestamptz;
COMMENT ON COLUMN given_up_tokens.revoked_at IS
    'when Google last answered a revocation, or may have carried one out; empty if never, or if by a '
    'release that did not note it';
ALTER TABLE pending_consents ADD COLUMN exchanged_after timestamptz;
COMMENT ON COLUMN pending_consents.exchanged_after IS
    'shortly before the code was exchanged; empty if by a release that did not note it';
-- migrate:down
ALTER TABLE pending_consents DROP COLUMN exchanged_after;
ALTER TABLE given_up_tokens DROP COLUMN revoked_at;
