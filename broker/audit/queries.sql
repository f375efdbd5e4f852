-- name: checkpoint
-- What stands for the seals that retention deleted.
SELECT number, seal_mac, records, faults, unverified, key_id, mac,
    CASE WHEN began_at BETWEEN '0001-01-02' AND '9999-12-30' THEN began_at ELSE 'epoch' END AS began_at,
    CASE WHEN until BETWEEN '0001-01-02' AND '9999-12-30' THEN until ELSE 'epoch' END AS until
FROM audit_checkpoints ORDER BY number DESC LIMIT 1

-- name: seals
-- All, in the order of the chain.
SELECT number, batch, records, digest, previous_mac, key_id, mac,
    CASE WHEN first_at BETWEEN '0001-01-02' AND '9999-12-30' THEN first_at ELSE 'epoch' END AS first_at,
    CASE WHEN last_at BETWEEN '0001-01-02' AND '9999-12-30' THEN last_at ELSE 'epoch' END AS last_at
FROM audit_seals ORDER BY number

-- name: newest_head
-- Where the chain ends; no row before the first seal.
SELECT number, mac FROM (
    SELECT number, mac FROM audit_seals UNION ALL SELECT number, seal_mac FROM audit_checkpoints
) AS chain ORDER BY number DESC LIMIT 1

-- name: records_of
-- The records of these batches. A time that Python can't hold shows as 1970.
SELECT batch, CASE WHEN at BETWEEN '0001-01-02' AND '9999-12-30' THEN at ELSE 'epoch' END AS at,
    action, outcome, caller, user_id, account_sub, scopes, request_id
FROM audit_events WHERE batch = ANY($1::bigint[]) ORDER BY batch, id

-- name: strays
-- Batches without a seal: no broker wrote these.
SELECT e.batch, count(*) AS records, min(e.id) AS first_id
FROM audit_events e
WHERE e.batch IS NOT NULL AND NOT EXISTS (SELECT FROM audit_seals s WHERE s.batch = e.batch)
GROUP BY e.batch ORDER BY 3 LIMIT 100

-- name: unsealed
-- Records without a batch, apart those after $1, by when no old release should have run any more;
-- all are after it where nobody knows it.
SELECT count(*) AS records, count(*) FILTER (WHERE coalesce(at > $1, true)) AS late,
    min(id) FILTER (WHERE coalesce(at > $1, true)) AS first_late_id
FROM audit_events WHERE batch IS NULL

-- name: sealing_since
-- When the table of seals came. A time that Python can't hold, or to come, is no excuse.
SELECT greatest(least(applied_at, now()), '1970-01-01') AS since
FROM schema_migrations WHERE name = 'audit_seals'

-- name: ids_given
-- How many ids records were given; nothing where this role may not know.
SELECT last_value FROM pg_sequences
WHERE format('%I.%I', schemaname, sequencename) = pg_get_serial_sequence('audit_events', 'id')

-- name: latest
-- The last of the records that fit, newest first. A time that Python can't hold shows as 1970.
SELECT e.id, CASE WHEN e.at BETWEEN '0001-01-02' AND '9999-12-30' THEN e.at ELSE 'epoch' END AS at,
    e.action, e.outcome, e.caller, e.user_id, e.account_sub, e.scopes, e.request_id,
    s.number AS seal
FROM audit_events e LEFT JOIN audit_seals s ON s.batch = e.batch
WHERE ($1::text IS NULL OR e.user_id = $1) AND ($2::text IS NULL OR e.caller = $2)
    AND ($3::text IS NULL OR e.account_sub = $3) AND ($4::text IS NULL OR e.action = $4)
    AND ($5::text IS NULL OR e.outcome = $5 OR starts_with(e.outcome, $5 || ':'))
    AND ($6::timestamptz IS NULL OR e.at >= $6) AND ($7::timestamptz IS NULL OR e.at < $7)
ORDER BY e.at DESC, e.id DESC LIMIT $8

-- name: all
-- Every record that fits, in the order of their ids.
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
-- Whether nobody else is deleting; opens, for this transaction, what triggers keep shut.
SELECT pg_try_advisory_xact_lock(7305417121) AND set_config('broker.audit_purge', 'on', true) = 'on'

-- name: oldest_seals
-- Where the chain begins, some of it.
SELECT number, batch, records, digest, previous_mac, key_id, mac,
    CASE WHEN first_at BETWEEN '0001-01-02' AND '9999-12-30' THEN first_at ELSE 'epoch' END AS first_at,
    CASE WHEN last_at BETWEEN '0001-01-02' AND '9999-12-30' THEN last_at ELSE 'epoch' END AS last_at
FROM audit_seals ORDER BY number LIMIT $1

-- name: delete_records
-- All of these batches; tells how many each had.
WITH gone AS (DELETE FROM audit_events WHERE batch = ANY($1::bigint[]) RETURNING batch)
SELECT batch, count(*) AS records FROM gone GROUP BY batch

-- name: delete_seals
-- All up to this one.
DELETE FROM audit_seals WHERE number <= $1

-- name: delete_checkpoints
-- The former one, which the next takes the place of.
DELETE FROM audit_checkpoints

-- name: add_checkpoint
-- What stands for all seals that were deleted.
INSERT INTO audit_checkpoints
    (number, seal_mac, began_at, until, records, faults, unverified, key_id, mac)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)

-- name: delete_unsealed
-- Some of the oldest records of releases before seals. By where they are, as in `purge_tokens`.
DELETE FROM audit_events WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM audit_events WHERE at < $1 AND batch IS NULL ORDER BY at LIMIT $2
))

-- name: head
-- The newest seal, kept from all other replicas until the transaction ends; and whether the seal
-- ($1, $2) is still in the chain.
SELECT number, mac, holds_own FROM audit_head($1, $2)

-- name: add_seal
-- The next in the chain.
INSERT INTO audit_seals
    (number, batch, records, first_at, last_at, digest, previous_mac, key_id, mac)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)

-- name: digest_of
-- The digest of a batch that is sealed already.
SELECT digest FROM audit_seals WHERE batch = $1
