-- name: put_visit
-- A new link to the page, not opened yet.
INSERT INTO connections_visits (id, caller, user_id, return_to, created_at, link_expires_at,
                                ends_at)
VALUES ($1, $2, $3, $4, $5, $6, $6)

-- name: open_visit
-- Of all who open a link, one gets in.
UPDATE connections_visits SET visitor_hash = $2, ends_at = $4
WHERE id = $1 AND visitor_hash IS NULL AND link_expires_at > $3
RETURNING *

-- name: find_visit
-- A visit, whatever has become of it.
SELECT * FROM connections_visits WHERE id = $1

-- name: find_visit_of
-- The visit of a browser, whether or not it is over.
SELECT * FROM connections_visits WHERE visitor_hash = $1

-- name: prolong_visit
-- The visitor goes to Google, and is to find the page open on coming back.
UPDATE connections_visits SET ends_at = $3 WHERE id = $1 AND ends_at > $2 AND ends_at < $3

-- name: end_visit
-- The visitor is done.
UPDATE connections_visits SET ends_at = $2 WHERE id = $1 AND ends_at > $2

-- name: purge_visits
-- Visits that are long over, and links that nobody opened.
DELETE FROM connections_visits WHERE ends_at <= $1
