-- name: sealing_keys_in_use
-- The number of stored secrets that each key sealed; refresh tokens last, the others expire.
SELECT key_id, lasts, count(*) AS secrets FROM (
    SELECT refresh_token_key_id AS key_id, true AS lasts FROM grants
    UNION ALL SELECT token_key_id, true FROM pending_revocations
    UNION ALL SELECT access_token_key_id, false FROM access_tokens
    UNION ALL SELECT secrets_key_id, false FROM consent_transactions
) AS sealed
WHERE key_id IS NOT NULL
GROUP BY key_id, lasts

-- name: server
-- The clock, the version, whether the server is a standby; its standbys, and whether commits wait
-- for one.
SELECT clock_timestamp() AS now, pg_is_in_recovery() AS is_replica,
       current_setting('server_version') AS version,
       (SELECT count(*) FROM pg_stat_replication) AS standbys,
       current_setting('synchronous_standby_names') <> '' AS is_synchronous

-- name: lost_commits
-- The users and accounts with a commit that a failover lost since $1, by kind. Each replica that
-- knew of the commit has recorded it, so they are counted once.
SELECT split_part(outcome, ':', 1) AS kind, count(DISTINCT (user_id, account_sub)) AS grants
FROM audit_events WHERE at > $1 AND action = 'commit_lost'
GROUP BY 1 ORDER BY 1
