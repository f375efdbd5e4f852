-- name: count_pages
-- The number of pages of a table.
SELECT pg_relation_size($1::text::regclass) / current_setting('block_size')::integer

-- name: purge_access_tokens
-- Delete the access tokens on some pages that expired before $3; locked rows are skipped.
DELETE FROM access_tokens WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM access_tokens
    WHERE ctid >= $1::tid AND ctid < $2::tid AND expires_at < $3 FOR UPDATE SKIP LOCKED
))

-- name: purge_leases
-- Delete the leases on some pages that ended before $3; locked rows are skipped.
DELETE FROM refresh_leases WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM refresh_leases
    WHERE ctid >= $1::tid AND ctid < $2::tid AND ends_at < $3 FOR UPDATE SKIP LOCKED
))

-- name: purge_grants
-- Delete the grants on some pages that were revoked before $3; locked rows are skipped. If such an
-- account is connected again, it gets a new grant.
DELETE FROM grants WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM grants
    WHERE ctid >= $1::tid AND ctid < $2::tid AND status = 'revoked' AND updated_at < $3
    FOR UPDATE SKIP LOCKED
))
