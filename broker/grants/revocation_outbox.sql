-- name: enqueue_revocation
-- Queue a revocation for Google. The token is kept, sealed for this purpose, until Google has
-- answered.
INSERT INTO pending_revocations (id, google_sub, sealed_token, token_key_id, origin,
                                 next_attempt_at, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $6)

-- name: cancel_revocations
-- Cancel the account's queued revocations: it was connected again, and revoking an older token now
-- would revoke the new grant too. A try whose answer was lost may have revoked the token at Google
-- all the same.
WITH cancelled AS (DELETE FROM pending_revocations WHERE google_sub = $1 RETURNING google_sub)
INSERT INTO given_up_tokens (google_sub, given_up_at)
SELECT DISTINCT google_sub, $2::timestamptz FROM cancelled
ON CONFLICT (google_sub) DO UPDATE SET given_up_at = excluded.given_up_at

-- name: claim_revocations
-- Claim some due revocations until $2, so that no other replica claims them; if the claimant dies,
-- they are due again then. The ARRAY chooses the rows once: a join may choose again, past what is
-- locked by then.
UPDATE pending_revocations SET next_attempt_at = $2, claimed_until = $2, attempts = attempts + 1
WHERE id = ANY(ARRAY(
    SELECT id FROM pending_revocations WHERE next_attempt_at <= $1
    ORDER BY next_attempt_at LIMIT $3 FOR UPDATE SKIP LOCKED
))
RETURNING *

-- name: finish_revocation
-- Google has answered, and may send a security event about it. The time is recorded even if the row
-- is gone: the transaction that deleted it did not know that the call to Google was under way.
WITH finished AS (DELETE FROM pending_revocations WHERE id = $1)
INSERT INTO given_up_tokens AS known (google_sub, given_up_at, revoked_at)
VALUES ($2, $3, clock_timestamp())
ON CONFLICT (google_sub) DO UPDATE SET
    given_up_at = excluded.given_up_at,
    revoked_at = greatest(known.revoked_at, excluded.revoked_at)

-- name: postpone_revocation
-- Google has not answered, so it may have revoked the token or not; try again at $4.
WITH postponed AS (
    UPDATE pending_revocations SET next_attempt_at = $4, claimed_until = NULL WHERE id = $1
)
INSERT INTO given_up_tokens AS known (google_sub, given_up_at, revoked_at)
VALUES ($2, $3, clock_timestamp())
ON CONFLICT (google_sub) DO UPDATE SET
    given_up_at = excluded.given_up_at,
    revoked_at = greatest(known.revoked_at, excluded.revoked_at)

-- name: was_revoked_at_google
-- True if a call to Google that revokes this account's authorization is under way, or was made
-- since $3 by the database's own clock.
SELECT EXISTS (
    SELECT FROM pending_revocations WHERE google_sub = $1 AND claimed_until > $2
) OR EXISTS (
    SELECT FROM given_up_tokens WHERE google_sub = $1 AND revoked_at >= $3::timestamptz
)

-- name: is_account_in_use
-- True if a live grant of any user, or a pending consent that may become one, needs this account.
SELECT EXISTS (
    SELECT FROM grants
    WHERE google_sub = $1 AND (status = 'active' OR reason = 'account_disabled')
) OR EXISTS (
    SELECT FROM pending_consents WHERE google_sub = $1 AND expires_at > $2
)
