-- name: note_token
-- Nothing comes back if this token has acted already. Two replicas that get it at once take turns.
INSERT INTO security_event_tokens (jti, events, verification_state, issued_at, received_at)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (jti) DO NOTHING
RETURNING jti

-- name: has_acted
-- Whether a token has acted, at whichever replica.
SELECT EXISTS (SELECT FROM security_event_tokens WHERE jti = $1) AS has_acted

-- name: note_account_state
-- Nothing comes back if something newer is known of the account.
INSERT INTO account_states AS known (google_sub, is_disabled, happened_at, received_at)
VALUES ($1, $2, $3, $4)
ON CONFLICT (google_sub) DO UPDATE SET
    is_disabled = excluded.is_disabled,
    happened_at = excluded.happened_at,
    received_at = excluded.received_at
WHERE known.happened_at <= excluded.happened_at
RETURNING google_sub

-- name: is_client_known
-- Whether any grant, or consent that waits, was made with one of these client ids.
SELECT EXISTS (SELECT FROM grants WHERE client_id = ANY ($1))
    OR EXISTS (SELECT FROM pending_consents WHERE client_id = ANY ($1))

-- name: purge_tokens
-- Those that came before $1, some at a time. By where they are, not by a join, which takes minutes
-- where the planner believes that the table is small. One that is changed meanwhile is left.
DELETE FROM security_event_tokens WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM security_event_tokens WHERE received_at < $1 LIMIT $2
))

-- name: purge_account_states
-- What an event that may still come can't contradict any more.
DELETE FROM account_states WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM account_states WHERE received_at < $1 LIMIT $2
))

-- name: purge_given_up
-- What an event that may still come is not mistaken for any more.
DELETE FROM given_up_tokens WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM given_up_tokens WHERE given_up_at < $1 LIMIT $2
))

-- name: find_verification
-- Whether a verification with this state has arrived.
SELECT EXISTS (SELECT FROM security_event_tokens WHERE verification_state = $1)
