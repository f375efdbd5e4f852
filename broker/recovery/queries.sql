-- name: records_by_id
-- Which of these the trail has. A time that Python can't hold shows as 1970.
SELECT id, CASE WHEN at BETWEEN '0001-01-02' AND '9999-12-30' THEN at ELSE 'epoch' END AS at,
    action, outcome, user_id, account_sub
FROM audit_events WHERE id = ANY ($1::bigint[])

-- name: live_grants
-- Every grant that can hand out a token, or could if its account were enabled again.
SELECT user_id, google_sub, status, reason, coalesce(consented_at, connected_at) AS consented_at,
    last_used_at
FROM grants WHERE status <> 'revoked' ORDER BY user_id, google_sub
