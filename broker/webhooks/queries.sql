-- name: claim
-- Claim some due events until $2 (`leased_outbox.py`). An event waits for earlier ones of its grant.
-- Events that were never tried go first: a backlog of failed ones must not delay new ones. The ARRAY
-- chooses the rows once: a join may choose again and again, each time past what is locked by then,
-- and so claim far more than $3.
UPDATE webhook_events SET next_attempt_at = $2, attempts = attempts + 1
WHERE id = ANY(ARRAY(
    SELECT event.id FROM webhook_events event
    WHERE event.next_attempt_at <= $1 AND event.given_up_at IS NULL
      AND NOT EXISTS (
          SELECT FROM webhook_events earlier
          WHERE earlier.grant_id = event.grant_id AND earlier.number < event.number
            AND earlier.given_up_at IS NULL
      )
    ORDER BY event.next_attempt_at, event.number LIMIT $3 FOR UPDATE SKIP LOCKED
))
RETURNING *

-- name: finish
-- The receiver has accepted it.
DELETE FROM webhook_events WHERE id = $1 AND attempts = $2

-- name: postpone
-- The receiver has not accepted it; send it again at $3.
UPDATE webhook_events SET next_attempt_at = $3, last_failure = $4
WHERE id = $1 AND attempts = $2 AND given_up_at IS NULL

-- name: give_up
-- Stop sending it; it is kept until `purge_given_up`, for operators.
UPDATE webhook_events SET given_up_at = $3, last_failure = $4
WHERE id = $1 AND attempts = $2 AND given_up_at IS NULL
RETURNING id

-- name: give_up_old
-- Stop sending events older than $1, some at a time.
UPDATE webhook_events SET given_up_at = $2
WHERE id = ANY(ARRAY(
    SELECT id FROM webhook_events
    WHERE happened_at < $1 AND next_attempt_at <= $2 AND given_up_at IS NULL
    ORDER BY number LIMIT $3 FOR UPDATE SKIP LOCKED
))
RETURNING *

-- name: purge_given_up
-- Delete events that were given up before $1; operators had time to inspect them.
DELETE FROM webhook_events WHERE given_up_at < $1

-- name: purge_without_receiver
-- Delete events older than $1, unless another replica is sending events; some at a time, because a
-- million grants may change together.
DELETE FROM webhook_events
WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM webhook_events WHERE happened_at < $1 ORDER BY happened_at LIMIT $3
))
  AND NOT EXISTS (
    SELECT FROM webhook_events tried
    WHERE tried.attempts > 0 AND tried.given_up_at IS NULL AND tried.happened_at >= $2
)

-- name: count_unsent
-- The number of events to be sent, for the gauge.
SELECT count(*) FROM webhook_events WHERE given_up_at IS NULL
