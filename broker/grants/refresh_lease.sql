-- name: acquire_lease
-- Acquire the lease unless another holder has it, or a failed holder's back-off still lasts. A
-- lease that seems to last for many minutes was written before the clock was set back, or before a
-- failover to a server with another clock: it counts as expired. The first fencing token is the
-- time in microseconds: higher than any that the row had before it was purged.
INSERT INTO refresh_leases AS lease (grant_id, scope_set, fence, ends_at)
VALUES ($1, $2, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, $4)
ON CONFLICT (grant_id, scope_set) DO UPDATE SET
    fence = lease.fence + 1, ends_at = excluded.ends_at, trouble = NULL
WHERE lease.ends_at <= $3 OR lease.ends_at > $3 + interval '2 minutes'
RETURNING fence

-- name: find_lease
-- When the lease that blocks this one ends, and why, if its holder failed.
SELECT trouble, ends_at FROM refresh_leases WHERE grant_id = $1 AND scope_set = $2

-- name: is_refreshing_other_scopes
-- True if another refresh of the grant, for other scopes, is under way.
SELECT EXISTS (
    SELECT FROM refresh_leases
    WHERE grant_id = $1 AND scope_set <> $2 AND trouble IS NULL
      AND ends_at > $3 AND ends_at <= $3 + interval '2 minutes'
)

-- name: is_lease_holder
-- True if the lease was not taken over. Locks the row, so that it is not taken over until the
-- transaction ends.
SELECT EXISTS (
    SELECT FROM refresh_leases
    WHERE grant_id = $1 AND scope_set = $2 AND fence = $3 FOR UPDATE
)

-- name: release_lease
-- Release the lease: the next holder may start immediately, or after the back-off of a failure.
UPDATE refresh_leases SET ends_at = $4, trouble = $5
WHERE grant_id = $1 AND scope_set = $2 AND fence = $3
RETURNING pg_notify('broker_refreshes', $1::text)
