-- name: count_by_key
-- The number of stored secrets by kind and key. Pending consents and authorization requests expire
-- within the hour; the other kinds stay.
SELECT kind, key_id, count(*) AS sealed FROM (
    SELECT 'refresh tokens' AS kind, refresh_token_key_id AS key_id FROM grants
    UNION ALL SELECT 'access tokens', access_token_key_id FROM access_tokens
    WHERE expires_at > now()
    UNION ALL SELECT 'queued revocations', token_key_id FROM pending_revocations
    UNION ALL SELECT 'pending consents', refresh_token_key_id FROM pending_consents
    UNION ALL SELECT 'pending consents', access_token_key_id FROM pending_consents
    UNION ALL SELECT 'authorization requests', secrets_key_id FROM consent_transactions
) AS stored
WHERE key_id IS NOT NULL GROUP BY kind, key_id ORDER BY kind, key_id

-- name: find_grants_to_reseal
-- Refresh tokens sealed with another key than $1, after grant $2.
SELECT * FROM grants WHERE refresh_token_key_id <> $1 AND id > $2 ORDER BY id LIMIT $3

-- name: reseal_grants
-- Store the same refresh tokens sealed with another key. Rows that are locked, or have another
-- token by now, are left for the next pass. Neither version is raised: for readers of the row
-- nothing changes.
WITH free AS (
    SELECT g.id, new.ciphertext
    FROM unnest($1::uuid[], $2::bytea[], $3::bytea[]) AS new (id, was, ciphertext)
    JOIN grants g ON g.id = new.id AND g.sealed_refresh_token = new.was
    FOR NO KEY UPDATE OF g SKIP LOCKED
)
UPDATE grants g SET sealed_refresh_token = free.ciphertext, refresh_token_key_id = $4
FROM free WHERE g.id = free.id
RETURNING g.id

-- name: find_access_tokens_to_reseal
-- Unexpired access tokens sealed with another key than $1, after scope set $3 of grant $2; with
-- their grants.
SELECT g.*, a.scope_set, a.sealed_access_token, a.access_token_key_id, a.scopes AS token_scopes,
       a.obtained_at, a.expires_at
FROM access_tokens a JOIN grants g ON g.id = a.grant_id
WHERE a.access_token_key_id <> $1 AND a.expires_at > now() AND (a.grant_id, a.scope_set) > ($2, $3)
ORDER BY a.grant_id, a.scope_set LIMIT $4

-- name: reseal_access_tokens
-- The same as reseal_grants, for access tokens.
WITH free AS (
    SELECT a.grant_id, a.scope_set, new.ciphertext
    FROM unnest($1::uuid[], $2::text[], $3::bytea[], $4::bytea[])
        AS new (grant_id, scope_set, was, ciphertext)
    JOIN access_tokens a ON a.grant_id = new.grant_id AND a.scope_set = new.scope_set
        AND a.sealed_access_token = new.was
    FOR NO KEY UPDATE OF a SKIP LOCKED
)
UPDATE access_tokens a SET sealed_access_token = free.ciphertext, access_token_key_id = $5
FROM free WHERE a.grant_id = free.grant_id AND a.scope_set = free.scope_set
RETURNING a.grant_id

-- name: find_revocations_to_reseal
-- Queued revocations sealed with another key than $1, after revocation $2.
SELECT * FROM pending_revocations WHERE token_key_id <> $1 AND id > $2 ORDER BY id LIMIT $3

-- name: reseal_revocation
-- The same as reseal_grants, for one queued revocation.
UPDATE pending_revocations SET sealed_token = $3, token_key_id = $4
WHERE id = $1 AND sealed_token = $2
