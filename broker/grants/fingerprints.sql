-- name: put_fingerprints
-- Store the fingerprints of the refresh token that was just stored.
UPDATE refresh_token_lookups SET key_id = $2, prefix = $3, digest = $4 WHERE grant_id = $1

-- name: put_many_fingerprints
-- Store the fingerprints of the refresh tokens of several grants.
UPDATE refresh_token_lookups l SET key_id = $2, prefix = made.prefix, digest = made.digest
FROM unnest($1::uuid[], $3::bytea[], $4::bytea[]) AS made (grant_id, prefix, digest)
WHERE l.grant_id = made.grant_id

-- name: find_grants_without_fingerprints
-- Grants whose fingerprints are missing or made with another key than $1, after grant $2.
SELECT g.*, l.generation FROM refresh_token_lookups l JOIN grants g ON g.id = l.grant_id
WHERE (l.key_id < $1 OR l.key_id > $1) AND l.grant_id > $2
ORDER BY l.grant_id LIMIT $3

-- name: fill_fingerprints
-- Store the fingerprints of an older refresh token, unless it was replaced since it was read.
UPDATE refresh_token_lookups SET key_id = $3, prefix = $4, digest = $5
WHERE grant_id = $1 AND generation = $2

-- name: find_pending_without_fingerprints
-- Pending consents whose fingerprints are missing or made with another key than $1, after link $2.
SELECT * FROM pending_consents
WHERE sealed_refresh_token IS NOT NULL AND lookup_key_id IS DISTINCT FROM $1 AND link_id > $2
ORDER BY link_id LIMIT $3

-- name: fill_pending_fingerprints
-- Store the fingerprints of a pending consent's refresh token, unless the link has brought another
-- consent, or the consent has got another token, since it was read.
UPDATE pending_consents SET lookup_key_id = $2, lookup_prefix = $3, lookup_digest = $4
WHERE link_id = $1 AND sealed_refresh_token = $5
