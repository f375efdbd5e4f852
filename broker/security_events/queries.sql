-- name: note_token
-- Returns no row if this token has acted before. Two replicas that receive it wait for each other.
INSERT INTO security_event_tokens (jti, events, verification_state, issued_at, received_at)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (jti) DO NOTHING
RETURNING jti

-- name: has_acted
-- True if a token has acted, on any replica.
SELECT EXISTS (SELECT FROM security_event_tokens WHERE jti = $1) AS has_acted

-- name: note_account_state
-- Returns no row if a newer state of the account is stored.
INSERT INTO account_states AS known (google_sub, is_disabled, happened_at, received_at)
VALUES ($1, $2, $3, $4)
ON CONFLICT (google_sub) DO UPDATE SET
    is_disabled = excluded.is_disabled,
    happened_at = excluded.happened_at,
    received_at = excluded.received_at
WHERE known.happened_at <= excluded.happened_at
RETURNING google_sub

-- name: is_client_known
-- True if any grant or pending consent was made with one of these client ids.
SELECT EXISTS (SELECT FROM grants WHERE client_id = ANY ($1))
    OR EXISTS (SELECT FROM pending_consents WHERE client_id = ANY ($1))

-- name: purge_tokens
-- Delete tokens received before $1, some at a time. By ctid: a join takes minutes where the planner
-- takes the table for a small one. A row that changes meanwhile stays.
DELETE FROM security_event_tokens WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM security_event_tokens WHERE received_at < $1 LIMIT $2
))

-- name: purge_account_states
-- Delete states that no acceptable event can contradict any more.
DELETE FROM account_states WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM account_states WHERE received_at < $1 LIMIT $2
))

-- name: purge_given_up
-- Delete dates that no acceptable event can concern any more.
DELETE FROM given_up_tokens WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM given_up_tokens WHERE given_up_at < $1 LIMIT $2
))

-- name: has_verification
-- True if a verification event with this state has arrived.
SELECT EXISTS (SELECT FROM security_event_tokens WHERE verification_state = $1)
