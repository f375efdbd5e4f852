-- oldest-release: 4
-- A refresh token that Google replaced changes nothing for the access tokens that are held: it is
-- counted apart from the grant's version, which voids them.
-- migrate:up
ALTER TABLE grants ADD COLUMN refresh_token_version bigint NOT NULL DEFAULT 1;
COMMENT ON COLUMN grants.refresh_token_version IS
    'raised whenever the refresh token changes; what was decided on an older one is refused';
-- migrate:down
ALTER TABLE grants DROP COLUMN refresh_token_version;
