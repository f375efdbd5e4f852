-- name: insert_visit
-- A new link to the page, which no browser has opened.
INSERT INTO connections_visits (id, caller, user_id, return_to, created_at, link_expires_at,
                                ends_at)
VALUES ($1, $2, $3, $4, $5, $6, $6)

-- name: open_visit
-- Of several browsers that open a link, one gets in.
UPDATE connections_visits SET visitor_hash = $2, ends_at = $4
WHERE id = $1 AND visitor_hash IS NULL AND link_expires_at > $3
RETURNING *

-- name: find_visit
-- A visit in any state.
SELECT * FROM connections_visits WHERE id = $1

-- name: find_visit_by_visitor
-- The visit of a browser, active or over.
SELECT * FROM connections_visits WHERE visitor_hash = $1

-- name: extend_visit
-- The browser leaves for Google, and must find its visit active on return.
UPDATE connections_visits SET ends_at = $3 WHERE id = $1 AND ends_at > $2 AND ends_at < $3

-- name: end_visit
-- The user signs out.
UPDATE connections_visits SET ends_at = $2 WHERE id = $1 AND ends_at > $2

-- name: purge_visits
-- Visits that ended before $1, and links that expired unopened before it.
DELETE FROM connections_visits WHERE ends_at <= $1
