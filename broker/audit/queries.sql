-- name: checkpoint
-- The newest checkpoint, which stands for the batches that retention deleted.
SELECT number, seal_mac, records, faults, unverified, key_id, mac,
    CASE WHEN began_at BETWEEN '0001-01-02' AND '9999-12-30' THEN began_at ELSE 'epoch' END AS began_at,
    CASE WHEN until BETWEEN '0001-01-02' AND '9999-12-30' THEN until ELSE 'epoch' END AS until
FROM audit_checkpoints ORDER BY number DESC LIMIT 1

-- name: batch_macs
-- The whole chain, in order.
SELECT number, batch, records, digest, previous_mac, key_id, mac,
    CASE WHEN first_at BETWEEN '0001-01-02' AND '9999-12-30' THEN first_at ELSE 'epoch' END AS first_at,
    CASE WHEN last_at BETWEEN '0001-01-02' AND '9999-12-30' THEN last_at ELSE 'epoch' END AS last_at
FROM audit_seals ORDER BY number

-- name: newest_head
-- The head of the chain; no row before the first batch.
SELECT number, mac FROM (
    SELECT number, mac FROM audit_seals UNION ALL SELECT number, seal_mac FROM audit_checkpoints
) AS chain ORDER BY number DESC LIMIT 1

-- name: records_of_batches
-- The records of these batches. A time outside Python's range becomes 1970.
SELECT batch, CASE WHEN at BETWEEN '0001-01-02' AND '9999-12-30' THEN at ELSE 'epoch' END AS at,
    action, outcome, caller, user_id, account_sub, scopes, request_id
FROM audit_events WHERE batch = ANY($1::bigint[]) ORDER BY batch, id

-- name: batches_outside_chain
-- Batch ids of records that are not in the chain: no broker wrote these.
SELECT e.batch, count(*) AS records, min(e.id) AS first_id
FROM audit_events e
WHERE e.batch IS NOT NULL AND NOT EXISTS (SELECT FROM audit_seals s WHERE s.batch = e.batch)
GROUP BY e.batch ORDER BY 3 LIMIT 100

-- name: count_records_without_batch
-- Records without a batch, and those of them after $1, when releases without a chain no longer ran.
-- If $1 is NULL, all count as late.
SELECT count(*) AS records, count(*) FILTER (WHERE coalesce(at > $1, true)) AS late,
    min(id) FILTER (WHERE coalesce(at > $1, true)) AS first_late_id
FROM audit_events WHERE batch IS NULL

-- name: chain_since
-- The time of the migration that made the chain. A time in the future, or outside Python's range, is
-- clamped.
SELECT greatest(least(applied_at, now()), '1970-01-01') AS since
FROM schema_migrations WHERE name = 'audit_seals'

-- name: last_record_id
-- The last id from the records' sequence; NULL if this role may not read it.
SELECT last_value FROM pg_sequences
WHERE format('%I.%I', schemaname, sequencename) = pg_get_serial_sequence('audit_events', 'id')

-- name: latest_records
-- The last records that match, newest first. A time outside Python's range becomes 1970.
SELECT e.id, CASE WHEN e.at BETWEEN '0001-01-02' AND '9999-12-30' THEN e.at ELSE 'epoch' END AS at,
    e.action, e.outcome, e.caller, e.user_id, e.account_sub, e.scopes, e.request_id,
    s.number AS seal
FROM audit_events e LEFT JOIN audit_seals s ON s.batch = e.batch
WHERE ($1::text IS NULL OR e.user_id = $1) AND ($2::text IS NULL OR e.caller = $2)
    AND ($3::text IS NULL OR e.account_sub = $3) AND ($4::text IS NULL OR e.action = $4)
    AND ($5::text IS NULL OR e.outcome = $5 OR starts_with(e.outcome, $5 || ':'))
    AND ($6::timestamptz IS NULL OR e.at >= $6) AND ($7::timestamptz IS NULL OR e.at < $7)
ORDER BY e.at DESC, e.id DESC LIMIT $8

-- name: all_records
-- Every record that matches, in the order of their ids.
SELECT e.id, CASE WHEN e.at BETWEEN '0001-01-02' AND '9999-12-30' THEN e.at ELSE 'epoch' END AS at,
    e.action, e.outcome, e.caller, e.user_id, e.account_sub, e.scopes, e.request_id,
    s.number AS seal
FROM audit_events e LEFT JOIN audit_seals s ON s.batch = e.batch
WHERE ($1::text IS NULL OR e.user_id = $1) AND ($2::text IS NULL OR e.caller = $2)
    AND ($3::text IS NULL OR e.account_sub = $3) AND ($4::text IS NULL OR e.action = $4)
    AND ($5::text IS NULL OR e.outcome = $5 OR starts_with(e.outcome, $5 || ':'))
    AND ($6::timestamptz IS NULL OR e.at >= $6) AND ($7::timestamptz IS NULL OR e.at < $7)
ORDER BY e.id

-- name: begin_purge
-- True if no other replica is deleting. Allows deletes in this transaction, which triggers forbid.
SELECT pg_try_advisory_xact_lock(7305417121) AND set_config('broker.audit_purge', 'on', true) = 'on'

-- name: oldest_batch_macs
-- The first links of the chain.
SELECT number, batch, records, digest, previous_mac, key_id, mac,
    CASE WHEN first_at BETWEEN '0001-01-02' AND '9999-12-30' THEN first_at ELSE 'epoch' END AS first_at,
    CASE WHEN last_at BETWEEN '0001-01-02' AND '9999-12-30' THEN last_at ELSE 'epoch' END AS last_at
FROM audit_seals ORDER BY number LIMIT $1

-- name: delete_records
-- Delete the records of these batches; returns the number of records of each.
WITH gone AS (DELETE FROM audit_events WHERE batch = ANY($1::bigint[]) RETURNING batch)
SELECT batch, count(*) AS records FROM gone GROUP BY batch

-- name: delete_batch_macs
-- Delete the chain up to this number.
DELETE FROM audit_seals WHERE number <= $1

-- name: delete_checkpoints
-- Delete the previous checkpoint; the next one replaces it.
DELETE FROM audit_checkpoints

-- name: add_checkpoint
-- Add the checkpoint for all batches that were deleted.
INSERT INTO audit_checkpoints
    (number, seal_mac, began_at, until, records, faults, unverified, key_id, mac)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)

-- name: delete_records_without_batch
-- Delete some of the oldest records of releases without a chain. By ctid, as in `purge_tokens`.
DELETE FROM audit_events WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM audit_events WHERE at < $1 AND batch IS NULL ORDER BY at LIMIT $2
))

-- name: lock_head
-- The head of the chain, locked until the transaction ends; and whether the batch ($1, $2) is still
-- in the chain.
SELECT number, mac, holds_own FROM audit_head($1, $2)

-- name: add_batch_mac
-- Append a link to the chain.
INSERT INTO audit_seals
    (number, batch, records, first_at, last_at, digest, previous_mac, key_id, mac)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)

-- name: batch_digest
-- The digest of a batch, if it is in the chain.
SELECT digest FROM audit_seals WHERE batch = $1
