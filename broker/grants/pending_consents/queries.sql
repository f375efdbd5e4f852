-- name: insert_pending_consent
-- Store a consent until it is confirmed.
INSERT INTO pending_consents (link_id, caller, user_id, google_sub, email, client_id, scopes,
                              seen_version, sealed_refresh_token, refresh_token_key_id,
                              sealed_access_token, access_token_key_id, access_scopes,
                              access_obtained_at, access_expires_at, code_hash, created_at,
                              expires_at, exchanged_after, lookup_key_id, lookup_prefix,
                              lookup_digest)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
        $21, $22)

-- name: find_account_of_lost_attempt
-- A link is completed once. A row that it has already was stored by an attempt that did not learn
-- whether its commit succeeded. The user is locked, so that the row does not change.
SELECT google_sub FROM pending_consents WHERE link_id = $1 AND caller = $2 AND user_id = $3

-- name: delete_lost_attempt
-- Delete what the lost attempt of the same link stored.
DELETE FROM pending_consents WHERE link_id = $1 AND caller = $2 AND user_id = $3 RETURNING *

-- name: find_pending_consent
-- The user and the account of a pending consent, while the caller that made its link can confirm
-- it.
SELECT user_id, google_sub FROM pending_consents
WHERE link_id = $1 AND caller = $2 AND expires_at > $3

-- name: lock_pending_consent
-- The same, locked for a decision; the later of two concurrent transactions finds nothing.
SELECT * FROM pending_consents WHERE link_id = $1 AND caller = $2 AND expires_at > $3 FOR UPDATE

-- name: count_wrong_code
-- Count a wrong confirmation code: the number of attempts is limited.
UPDATE pending_consents SET wrong_codes = wrong_codes + 1 WHERE link_id = $1
RETURNING wrong_codes

-- name: find_pending_consents_of_users
-- The unexpired pending consents of some users, the newest first.
SELECT * FROM pending_consents WHERE user_id = ANY ($1) AND expires_at > $2
ORDER BY created_at DESC, link_id

-- name: find_expired_consents
-- Some of the pending consents that were not confirmed in time.
SELECT link_id, user_id, google_sub FROM pending_consents WHERE expires_at <= $1
ORDER BY expires_at LIMIT $2

-- name: delete_expired_consent
-- Delete an expired pending consent; one of several replicas gets the row.
DELETE FROM pending_consents WHERE link_id = $1 AND expires_at <= $2 RETURNING *

-- name: delete_pending_consent
-- Delete a pending consent, whether it becomes a grant or not.
DELETE FROM pending_consents WHERE link_id = $1 RETURNING *

-- name: delete_pending_consents_of_user
-- Delete the pending consents that a revocation ends: all of the user's, or those of the given
-- account.
DELETE FROM pending_consents
WHERE user_id = $1 AND ($2::text IS NULL OR google_sub = $2)
RETURNING *

-- name: lock_pending_consents_of_account
-- Lock all pending consents of one Google account, of all users, always in the same order.
SELECT * FROM pending_consents WHERE google_sub = $1 ORDER BY link_id FOR UPDATE

-- name: find_pending_by_token_prefix
-- The pending consents whose refresh token has one of these prefix fingerprints (one per key).
SELECT * FROM pending_consents WHERE lookup_prefix = ANY ($1::bytea[])

-- name: find_pending_by_token_digest
-- The pending consents whose refresh token has one of these digest fingerprints (one per key).
SELECT * FROM pending_consents WHERE lookup_digest = ANY ($1::bytea[])

-- name: find_pending_without_token
-- The pending consents without a refresh token of their own: they rely on the grant's.
SELECT * FROM pending_consents
WHERE user_id = $1 AND google_sub = $2 AND sealed_refresh_token IS NULL

-- name: delete_pending_access_token
-- Delete the access token, so that the first request after the confirmation refreshes.
UPDATE pending_consents SET sealed_access_token = NULL, access_token_key_id = NULL,
                            access_scopes = NULL, access_obtained_at = NULL, access_expires_at = NULL
WHERE link_id = $1 AND sealed_access_token IS NOT NULL

-- name: lock_pending_consents_within
-- Lock the pending consents of this user, account and client that have no scope beyond $4.
SELECT * FROM pending_consents
WHERE user_id = $1 AND google_sub = $2 AND client_id = $3 AND scopes <@ $4::text[]
  AND expires_at > $5
ORDER BY link_id FOR UPDATE

-- name: replace_pending_refresh_token
-- Replace the refresh token by a newer one that can fetch all scopes of the pending consent.
UPDATE pending_consents SET sealed_refresh_token = $2, refresh_token_key_id = $3,
                            exchanged_after = $4,
                            lookup_key_id = $5, lookup_prefix = $6, lookup_digest = $7
WHERE link_id = $1
