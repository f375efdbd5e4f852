-- name: claim
-- Take some that are due, out of the others' sight until $2; a claimant that dies lets go then.
-- An event waits for the earlier ones of its grant. What was never tried goes first, so that a
-- backlog of failed ones does not hold up what is new. As an array they are chosen once: a join may
-- choose again and again, each time past what is locked by then, and so far more than $3.
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
-- The receiver has it.
DELETE FROM webhook_events WHERE id = $1 AND attempts = $2

-- name: postpone
-- The receiver has not taken it; send it again at $3.
UPDATE webhook_events SET next_attempt_at = $3, last_failure = $4
WHERE id = $1 AND attempts = $2 AND given_up_at IS NULL

-- name: give_up
-- It is not sent any more; kept for a while, for people.
UPDATE webhook_events SET given_up_at = $3, last_failure = $4
WHERE id = $1 AND attempts = $2 AND given_up_at IS NULL
RETURNING id

-- name: give_up_old
-- The same for what waits since before $1, some of them at a time.
UPDATE webhook_events SET given_up_at = $2
WHERE id = ANY(ARRAY(
    SELECT id FROM webhook_events
    WHERE happened_at < $1 AND next_attempt_at <= $2 AND given_up_at IS NULL
    ORDER BY number LIMIT $3 FOR UPDATE SKIP LOCKED
))
RETURNING *

-- name: forget_given_up
-- People have had time to look at what was given up before $1.
DELETE FROM webhook_events WHERE given_up_at < $1

-- name: forget_unwanted
-- With nobody to tell here: what is from before $1, unless another replica is trying to tell it;
-- some of it at a time, for a million grants may have been connected at once.
DELETE FROM webhook_events
WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM webhook_events WHERE happened_at < $1 ORDER BY happened_at LIMIT $3
))
  AND NOT EXISTS (
    SELECT FROM webhook_events tried
    WHERE tried.attempts > 0 AND tried.given_up_at IS NULL AND tried.happened_at >= $2
)

-- name: count_waiting
-- For the gauge.
SELECT count(*) FROM webhook_events WHERE given_up_at IS NULL
