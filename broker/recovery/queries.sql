-- name: records_by_id
-- The audit records with these ids. A time that Python cannot hold is returned as 1970.
SELECT id, CASE WHEN at BETWEEN '0001-01-02' AND '9999-12-30' THEN at ELSE 'epoch' END AS at,
    action, outcome, user_id, account_sub
FROM audit_events WHERE id = ANY ($1::bigint[])

-- name: live_grants
-- Every grant that can hand out a token, or could if Google enabled its account again.
SELECT user_id, google_sub, status, reason, coalesce(consented_at, connected_at) AS consented_at,
    last_used_at
FROM grants WHERE status <> 'revoked' ORDER BY user_id, google_sub

-- name: refresh_tokens_by_key
-- The newest grant of each sealing key, with the number of refresh tokens of that key.
SELECT DISTINCT ON (refresh_token_key_id) *,
    count(*) OVER (PARTITION BY refresh_token_key_id) AS sealed
FROM grants WHERE refresh_token_key_id IS NOT NULL
ORDER BY refresh_token_key_id, changed_at DESC

-- name: access_tokens_by_key
-- The newest access token of each sealing key, with their number; an expired one opens as well.
SELECT DISTINCT ON (a.access_token_key_id) g.*, a.scope_set, a.scopes AS token_scopes,
    a.sealed_access_token, a.access_token_key_id, a.obtained_at, a.expires_at,
    count(*) OVER (PARTITION BY a.access_token_key_id) AS sealed
FROM access_tokens a JOIN grants g ON g.id = a.grant_id
ORDER BY a.access_token_key_id, a.obtained_at DESC

-- name: revocations_by_key
-- The newest entry of the revocation outbox of each sealing key, with their number.
SELECT DISTINCT ON (token_key_id) *, count(*) OVER (PARTITION BY token_key_id) AS sealed
FROM pending_revocations ORDER BY token_key_id, created_at DESC

-- name: signs_of_use
-- The other sessions of brokers, and the standbys of this server.
SELECT (SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'token-broker'
            AND pid <> pg_backend_pid()) AS brokers,
       (SELECT count(*) FROM pg_stat_replication) AS standbys,
       pg_is_in_recovery() AS is_standby

-- name: newest_commit
-- The time of the newest commit, as far as rows show it; NULL if there are no rows.
SELECT greatest(
    (SELECT max(changed_at) FROM grants),
    (SELECT last_at FROM audit_seals ORDER BY number DESC LIMIT 1)
)

-- name: newest_active_grant
-- A grant whose token could be handed out.
SELECT * FROM grants
WHERE status = 'active' AND sealed_refresh_token IS NOT NULL ORDER BY changed_at DESC LIMIT 1

-- name: delete_access_token
-- Delete the access token that a drill has stored.
DELETE FROM access_tokens WHERE grant_id = $1 AND scope_set = $2
