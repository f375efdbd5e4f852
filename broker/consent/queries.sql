-- name: put_link
-- A new connect link, not opened yet.
INSERT INTO connect_links (id, caller, user_id, scopes, redirect_uri, return_to, login_hint,
                           created_at, expires_at, confirm)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)

-- name: find_link
-- A link, whatever has become of it.
SELECT * FROM connect_links WHERE id = $1

-- name: open_link
-- The first browser that opens a link owns it. The row is locked until the transaction ends, so
-- that of two openings at once the later one voids the other's trip.
UPDATE connect_links SET browser_hash = $2
WHERE id = $1 AND completed_at IS NULL AND expires_at > $3
  AND (browser_hash IS NULL OR browser_hash = $2)
RETURNING id

-- name: reopen_link
-- The same browser is sent to Google once more, to be asked for consent anew; its link may have
-- expired while it was there.
UPDATE connect_links SET force_consent = true
WHERE id = $1 AND browser_hash = $2 AND completed_at IS NULL
RETURNING id

-- name: void_transactions
-- A new trip ends those that the link had started before.
DELETE FROM consent_transactions WHERE link_id = $1

-- name: put_transaction
-- A trip to Google begins.
INSERT INTO consent_transactions (state_hash, link_id, browser_hash, consent_prompted,
                                  sealed_secrets, secrets_key_id, created_at, expires_at,
                                  asked_scopes)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)

-- name: take_transaction
-- A trip ends: of several callbacks with one state, one gets the row. The wrong browser leaves it
-- where it is, so that knowing a state is not enough to spoil it.
DELETE FROM consent_transactions t USING connect_links l
WHERE t.state_hash = $1 AND t.browser_hash = ANY ($2::bytea[]) AND t.expires_at > $3
  AND l.id = t.link_id
RETURNING l.*, t.browser_hash AS trip_browser_hash, t.consent_prompted, t.sealed_secrets,
          t.secrets_key_id, t.asked_scopes, clock_timestamp() AS taken_at

-- name: find_link_of_state
-- Whose trip a state belongs to; for the record only.
SELECT l.* FROM consent_transactions t JOIN connect_links l ON l.id = t.link_id
WHERE t.state_hash = $1 AND t.expires_at > $2

-- name: complete_link
-- Of two trips of one link, one may complete it.
UPDATE connect_links SET completed_at = $2 WHERE id = $1 AND completed_at IS NULL
RETURNING id

-- name: release_link
-- Completing failed after all; the link is as good as before.
UPDATE connect_links SET completed_at = NULL WHERE id = $1

-- name: purge_transactions
-- Trips that nobody can end any more.
DELETE FROM consent_transactions WHERE expires_at <= $1

-- name: purge_links
-- Links that nobody can open any more, and whose trips have all ended.
DELETE FROM connect_links l
WHERE l.expires_at <= $1
  AND NOT EXISTS (SELECT FROM consent_transactions t WHERE t.link_id = l.id)
