-- oldest-release: 4
-- When a grant was consented to, apart from when it last changed: an event that came late is about
-- what had been consented to by then, whatever has become of it since.
-- migrate:up
ALTER TABLE grants ADD COLUMN consented_at timestamptz;
COMMENT ON COLUMN grants.consented_at IS
    'when the last consent was given, confirmed or not; empty if by a release that did not note it';
-- migrate:down
ALTER TABLE grants DROP COLUMN consented_at;
