-- name: insert_link
-- A new connect link, which no browser has opened.
INSERT INTO connect_links (id, caller, user_id, scopes, redirect_uri, return_to, login_hint,
                           created_at, expires_at, confirm)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)

-- name: find_link
-- A link in any state.
SELECT * FROM connect_links WHERE id = $1

-- name: bind_link
-- The first browser that opens a link owns it. The row is locked until the transaction ends, so
-- that of two openings at the same time the later one deletes the other's authorization request.
UPDATE connect_links SET browser_hash = $2
WHERE id = $1 AND completed_at IS NULL AND expires_at > $3
  AND (browser_hash IS NULL OR browser_hash = $2)
RETURNING id

-- name: force_consent
-- The same browser is sent to Google once more, with a prompt for consent. Its link may have
-- expired while it was there.
UPDATE connect_links SET force_consent = true
WHERE id = $1 AND browser_hash = $2 AND completed_at IS NULL
RETURNING id

-- name: delete_requests_of_link
-- A new authorization request replaces the earlier ones of its link.
DELETE FROM consent_transactions WHERE link_id = $1

-- name: insert_request
-- A new authorization request.
INSERT INTO consent_transactions (state_hash, link_id, browser_hash, consent_prompted,
                                  sealed_secrets, secrets_key_id, created_at, expires_at,
                                  asked_scopes)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)

-- name: consume_request
-- Of several callbacks with one state, one gets the row. A wrong browser leaves the row in place,
-- so that knowledge of the state alone cannot invalidate it.
DELETE FROM consent_transactions t USING connect_links l
WHERE t.state_hash = $1 AND t.browser_hash = ANY ($2::bytea[]) AND t.expires_at > $3
  AND l.id = t.link_id
RETURNING l.*, t.browser_hash AS request_browser_hash, t.consent_prompted, t.sealed_secrets,
          t.secrets_key_id, t.asked_scopes, clock_timestamp() AS consumed_at

-- name: find_link_by_state
-- The link of an authorization request, for the audit record only.
SELECT l.* FROM consent_transactions t JOIN connect_links l ON l.id = t.link_id
WHERE t.state_hash = $1 AND t.expires_at > $2

-- name: complete_link
-- Of two callbacks of one link, one may complete it.
UPDATE connect_links SET completed_at = $2 WHERE id = $1 AND completed_at IS NULL
RETURNING id

-- name: release_link
-- The consent could not be stored: the link can be used again.
UPDATE connect_links SET completed_at = NULL WHERE id = $1

-- name: purge_requests
-- Expired authorization requests.
DELETE FROM consent_transactions WHERE expires_at <= $1

-- name: purge_links
-- Links that expired before $1 and have no authorization request left.
DELETE FROM connect_links l
WHERE l.expires_at <= $1
  AND NOT EXISTS (SELECT FROM consent_transactions t WHERE t.link_id = l.id)
