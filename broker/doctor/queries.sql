-- name: sealing_keys_in_use
-- How many stored secrets each key sealed; those that last are refresh tokens.
SELECT key_id, lasts, count(*) AS secrets FROM (
    SELECT refresh_token_key_id AS key_id, true AS lasts FROM grants
    UNION ALL SELECT token_key_id, true FROM pending_revocations
    UNION ALL SELECT access_token_key_id, false FROM access_tokens
    UNION ALL SELECT secrets_key_id, false FROM consent_transactions
) AS sealed
WHERE key_id IS NOT NULL
GROUP BY key_id, lasts

-- name: server
-- Its clock, whether it may be written to, and its version.
SELECT clock_timestamp() AS now, pg_is_in_recovery() AS is_replica,
       current_setting('server_version') AS version
