-- name: lock_user
-- Serialise connects and revocations of one user until the transaction ends, so that exactly one
-- grant is the default.
SELECT pg_advisory_xact_lock(hashtextextended('user ' || $1, 0))

-- name: lock_account
-- Serialise everything that connects or revokes one Google account until the transaction ends:
-- whether a grant is the account's last, so that Google has to be called, is decided by one
-- transaction at a time.
SELECT pg_advisory_xact_lock(hashtextextended('google account ' || $1, 0))

-- name: find_for_user
-- A user's live grants with their unexpired access tokens: one row per token, or one row without a
-- token. Unsorted: the rows are few, and a sort costs the server half of all the rest.
SELECT g.*, a.scope_set, a.scopes AS token_scopes, a.sealed_access_token, a.access_token_key_id,
       a.obtained_at, a.expires_at
FROM grants g
LEFT JOIN access_tokens a ON a.grant_id = g.id AND a.expires_at > $2
WHERE g.user_id = $1 AND g.status <> 'revoked'

-- name: find_for_users
-- The same for many users; sorted, so that the rows of one grant are neighbours.
SELECT g.*, a.scope_set, a.scopes AS token_scopes, a.sealed_access_token, a.access_token_key_id,
       a.obtained_at, a.expires_at
FROM grants g
LEFT JOIN access_tokens a ON a.grant_id = g.id AND a.expires_at > $2
WHERE g.user_id = ANY ($1) AND g.status <> 'revoked'
ORDER BY g.connected_at, g.id

-- name: list_for_user
-- All of a user's grants, including revoked ones.
SELECT * FROM grants WHERE user_id = $1 ORDER BY connected_at, id

-- name: find_by_ids
-- Grants in their current state, whatever their status.
SELECT * FROM grants WHERE id = ANY ($1::uuid[])

-- name: lock_user_grant
-- Lock the grant that a user has for one Google account, whatever its status.
SELECT * FROM grants WHERE user_id = $1 AND google_sub = $2 FOR UPDATE

-- name: lock_grant
-- Lock one grant and return its current state.
SELECT * FROM grants WHERE id = $1 FOR UPDATE

-- name: has_other_grant
-- True if the user has another live grant. Only a user's first grant becomes the default by itself.
SELECT EXISTS (
    SELECT FROM grants WHERE user_id = $1 AND google_sub <> $2 AND status <> 'revoked'
)

-- name: make_last_grant_default
-- Make the only remaining grant the default, so that it stays the default when another is added.
UPDATE grants SET is_default = true
WHERE user_id = $1 AND status <> 'revoked' AND NOT is_default
  AND (SELECT count(*) FROM grants WHERE user_id = $1 AND status <> 'revoked') = 1

-- name: upsert_grant
-- Create the grant, or continue it with what this consent granted. A confirmed pending consent may
-- be older than the live grant's last consent; the later time counts.
INSERT INTO grants (id, user_id, google_sub, email, client_id, scopes, status, is_default,
                    sealed_refresh_token, refresh_token_key_id, connected_at, updated_at,
                    consented_at)
VALUES ($1, $2, $3, $4, $5, $6, 'active', $7, $8, $9, $10, $10, $11)
ON CONFLICT (user_id, google_sub) DO UPDATE SET
    email = excluded.email,
    client_id = excluded.client_id,
    scopes = excluded.scopes,
    status = 'active',
    reason = NULL,
    is_default = excluded.is_default,
    version = grants.version + 1,
    refresh_token_version = grants.refresh_token_version + 1,
    sealed_refresh_token = excluded.sealed_refresh_token,
    refresh_token_key_id = excluded.refresh_token_key_id,
    connected_at = CASE WHEN grants.status = 'revoked'
                        THEN excluded.connected_at ELSE grants.connected_at END,
    updated_at = excluded.updated_at,
    consented_at = greatest(
        excluded.consented_at,
        CASE WHEN grants.status = 'active' THEN coalesce(grants.consented_at, grants.updated_at) END
    )
RETURNING *

-- name: delete_access_tokens
-- Delete the access tokens of an earlier consent, or of a revoked grant.
DELETE FROM access_tokens WHERE grant_id = $1

-- name: upsert_access_token
-- Store an access token. A late writer loses: nothing is written for a grant that changed since it
-- was read, nor over a token that lives longer.
INSERT INTO access_tokens (grant_id, scope_set, scopes, sealed_access_token, access_token_key_id,
                           obtained_at, expires_at)
SELECT $1, $3, $4, $5, $6, $7, $8
FROM grants WHERE id = $1 AND version = $2 AND status = 'active'
ON CONFLICT (grant_id, scope_set) DO UPDATE SET
    scopes = excluded.scopes,
    sealed_access_token = excluded.sealed_access_token,
    access_token_key_id = excluded.access_token_key_id,
    obtained_at = excluded.obtained_at,
    expires_at = excluded.expires_at
WHERE access_tokens.expires_at <= excluded.expires_at

-- name: is_current
-- True if a grant is unchanged since it was read; with $3, its refresh token too. Locks the row
-- until the transaction ends.
SELECT EXISTS (
    SELECT FROM grants
    WHERE id = $1 AND version = $2 AND status = 'active'
      AND ($3::bigint IS NULL OR refresh_token_version = $3)
    FOR NO KEY UPDATE
)

-- name: has_refresh_token
-- True if a grant still has the refresh token that it had when it was read, in use or suspended,
-- although the grant has changed since, as by a security event that requires a refresh. Locks the
-- row until the transaction ends.
SELECT EXISTS (
    SELECT FROM grants
    WHERE id = $1 AND refresh_token_version = $2 AND sealed_refresh_token IS NOT NULL
      AND (status = 'active' OR reason = 'account_disabled')
    FOR NO KEY UPDATE
)

-- name: replace_refresh_token
-- Replace the refresh token of a current grant by the one that Google sent. The grant's version
-- stays: the stored access tokens outlive the old refresh token.
UPDATE grants SET sealed_refresh_token = $2, refresh_token_key_id = $3,
                  refresh_token_version = refresh_token_version + 1, updated_at = $4
WHERE id = $1
RETURNING refresh_token_version

-- name: mark_reauthorization_required
-- Google no longer accepts the refresh token that was read. The ciphertext is kept, so that an
-- operator's error stays reversible.
UPDATE grants SET status = 'reauthorization_required', reason = $3, version = version + 1,
                  updated_at = $4
WHERE id = $1 AND version = $2 AND status = 'active' AND refresh_token_version = $5
RETURNING id

-- name: put_given_up_token
-- Record that the account's refresh token was replaced by another consent's, or is about to be.
INSERT INTO given_up_tokens (google_sub, given_up_at) VALUES ($1, $2)
ON CONFLICT (google_sub) DO UPDATE SET given_up_at = excluded.given_up_at

-- name: find_given_up_at
-- When a refresh token of the account was last replaced or revoked.
SELECT given_up_at FROM given_up_tokens WHERE google_sub = $1

-- name: find_accounts_of_user
-- The accounts that a revocation concerns, in the order in which they are locked.
SELECT google_sub FROM grants
WHERE user_id = $1 AND status <> 'revoked' AND ($2::text IS NULL OR google_sub = $2)
UNION
SELECT google_sub FROM pending_consents
WHERE user_id = $1 AND ($2::text IS NULL OR google_sub = $2)
ORDER BY google_sub

-- name: find_revocable_grants
-- The grants that a revocation ends: all of the user's, or the one of the given account.
SELECT * FROM grants
WHERE user_id = $1 AND status <> 'revoked' AND ($2::text IS NULL OR google_sub = $2)
ORDER BY google_sub

-- name: revoke_grant
-- Revoke the grant and erase its sealed refresh token.
UPDATE grants SET status = 'revoked', reason = NULL, is_default = false, version = version + 1,
                  sealed_refresh_token = NULL, refresh_token_key_id = NULL, updated_at = $2
WHERE id = $1 AND status <> 'revoked'
RETURNING *

-- name: is_revoked
-- True if nothing of the user (of one account, or all) remains that existed at $3. What the user
-- consented to later does not count.
SELECT NOT EXISTS (
    SELECT FROM grants
    WHERE user_id = $1 AND status <> 'revoked' AND ($2::text IS NULL OR google_sub = $2)
        AND coalesce(consented_at, connected_at) <= $3
) AND NOT EXISTS (
    SELECT FROM pending_consents
    WHERE user_id = $1 AND ($2::text IS NULL OR google_sub = $2) AND created_at <= $3
) AS is_revoked

-- name: is_account_used_by_others
-- True if another live grant needs this Google account, now or when the account is enabled again;
-- or a pending consent that may become a grant.
SELECT EXISTS (
    SELECT FROM grants
    WHERE google_sub = $1 AND id <> $2 AND (status = 'active' OR reason = 'account_disabled')
) OR EXISTS (
    SELECT FROM pending_consents WHERE google_sub = $1 AND expires_at > $3
)

-- name: lock_grants_of_account
-- Lock all live grants of one Google account, of all users, always in the same order.
SELECT * FROM grants WHERE google_sub = $1 AND status <> 'revoked' ORDER BY id FOR UPDATE

-- name: find_by_token_prefix
-- The grants whose refresh token has one of these prefix fingerprints (one per key).
SELECT g.* FROM refresh_token_lookups l JOIN grants g ON g.id = l.grant_id
WHERE l.prefix = ANY ($1::bytea[])

-- name: find_by_token_digest
-- The grants whose refresh token has one of these digest fingerprints (one per key).
SELECT g.* FROM refresh_token_lookups l JOIN grants g ON g.id = l.grant_id
WHERE l.digest = ANY ($1::bytea[])

-- name: erase_refresh_token
-- Erase a refresh token that Google has revoked, or that is no longer trusted. Only a new consent
-- makes the grant active again.
UPDATE grants SET status = 'reauthorization_required', reason = $2, version = version + 1,
                  sealed_refresh_token = NULL, refresh_token_key_id = NULL, updated_at = $3
WHERE id = $1 AND status <> 'revoked'

-- name: suspend_grant
-- The account is disabled: no token is served, and the refresh token is kept.
UPDATE grants SET status = 'reauthorization_required', reason = 'account_disabled',
                  version = version + 1, updated_at = $2
WHERE id = $1 AND status = 'active'

-- name: resume_grant
-- The account is enabled again: a suspended grant becomes active.
UPDATE grants SET status = 'active', reason = NULL, version = version + 1, updated_at = $2
WHERE id = $1 AND status = 'reauthorization_required' AND reason = 'account_disabled'
  AND sealed_refresh_token IS NOT NULL

-- name: raise_version
-- Raise the version, so that a refresh under way cannot store again the access tokens that were
-- just deleted.
UPDATE grants SET version = version + 1 WHERE id = $1 AND status = 'active'

-- name: write_last_uses
-- Write when grants were last used, and by which caller; a time never moves backwards. Locked rows
-- are skipped and returned, so that no writer waits and no two deadlock.
WITH later AS (
    SELECT g.id, used.at, used.by
    FROM unnest($1::uuid[], $2::timestamptz[], $3::text[]) AS used (id, at, by)
    JOIN grants g ON g.id = used.id
    WHERE g.last_used_at IS NULL OR g.last_used_at < used.at
), free AS (
    SELECT g.id FROM grants g WHERE g.id = ANY (ARRAY(SELECT id FROM later))
    ORDER BY g.id FOR NO KEY UPDATE SKIP LOCKED
), noted AS (
    UPDATE grants g SET last_used_at = later.at, last_used_by = later.by
    FROM later, free
    WHERE g.id = later.id AND g.id = free.id
      AND (g.last_used_at IS NULL OR g.last_used_at < later.at)
)
SELECT id FROM later WHERE id NOT IN (SELECT id FROM free)

-- name: count_by_status
-- The number of grants of each status, for the gauge.
SELECT status, count(*) AS grants FROM grants GROUP BY status
UNION ALL
SELECT 'pending_confirmation', count(*) FROM pending_consents

-- name: poll_changes
-- The grants changed at or after $1 (none if $1 is NULL), the database's time, and its timeline,
-- which is another after each promotion; one row without a grant if nothing changed. The timeline
-- is NULL where $2 is false, for a server that does not report it. On a standby the query always
-- fails (55000): what a standby knows may be outdated.
SELECT clock_timestamp() AS now,
       CASE WHEN $2 OR pg_is_in_recovery()
            THEN left(pg_walfile_name(pg_current_wal_lsn()), 8) END AS timeline,
       g.id, g.user_id, g.google_sub, g.version, g.status, g.reason, g.updated_at, g.changed_at
FROM (SELECT) AS one
LEFT JOIN grants g ON g.changed_at >= $1
