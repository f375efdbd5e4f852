-- name: lock_account
-- Everything that connects or revokes one Google account takes turns, until the transaction ends:
-- who is last to go, and whether Google is to be told, can't be decided by two at once.
SELECT pg_advisory_xact_lock(hashtextextended('google account ' || $1, 0))

-- name: lock_user
-- Connects and withdrawals of one user take turns, so that exactly one grant is the default.
SELECT pg_advisory_xact_lock(hashtextextended('user ' || $1, 0))

-- name: find_for_user
-- A user's live grants with the access tokens held for them: one row per token, or one without.
-- In no order: there are few, and a sort costs the server as much as half of all the rest.
SELECT g.*, a.scope_set, a.scopes AS token_scopes, a.sealed_access_token, a.access_token_key_id,
       a.obtained_at, a.expires_at
FROM grants g
LEFT JOIN access_tokens a ON a.grant_id = g.id AND a.expires_at > $2
WHERE g.user_id = $1 AND g.status <> 'revoked'

-- name: find_for_users
-- The same for many users at once; sorted, so that the rows of one grant stand together.
SELECT g.*, a.scope_set, a.scopes AS token_scopes, a.sealed_access_token, a.access_token_key_id,
       a.obtained_at, a.expires_at
FROM grants g
LEFT JOIN access_tokens a ON a.grant_id = g.id AND a.expires_at > $2
WHERE g.user_id = ANY ($1) AND g.status <> 'revoked'
ORDER BY g.connected_at, g.id

-- name: list_for_user
-- All of a user's grants, revoked ones too.
SELECT * FROM grants WHERE user_id = $1 ORDER BY connected_at, id

-- name: find_by_account
-- The grant that a user has for one Google account, whatever its status.
SELECT * FROM grants WHERE user_id = $1 AND google_sub = $2 FOR UPDATE

-- name: has_other
-- Whether the user has another live grant: only a first one becomes the default by itself.
SELECT EXISTS (
    SELECT FROM grants WHERE user_id = $1 AND google_sub <> $2 AND status <> 'revoked'
)

-- name: promote_last
-- The only grant that is left becomes the default, so that it stays so when another is added.
UPDATE grants SET is_default = true
WHERE user_id = $1 AND status <> 'revoked' AND NOT is_default
  AND (SELECT count(*) FROM grants WHERE user_id = $1 AND status <> 'revoked') = 1

-- name: put_grant
-- A new consent: the grant is made, or continued, with what was granted this time. One that waited
-- for its confirmation may have been given before the live grant's last: that one's time counts.
INSERT INTO grants (id, user_id, google_sub, email, client_id, scopes, status, is_default,
                    sealed_refresh_token, refresh_token_key_id, connected_at, updated_at,
                    consented_at)
VALUES ($1, $2, $3, $4, $5, $6, 'active', $7, $8, $9, $10, $10, $11)
ON CONFLICT (user_id, google_sub) DO UPDATE SET
    email = excluded.email,
    client_id = excluded.client_id,
    scopes = excluded.scopes,
    status = 'active',
    reason = NULL,
    is_default = excluded.is_default,
    version = grants.version + 1,
    refresh_token_version = grants.refresh_token_version + 1,
    sealed_refresh_token = excluded.sealed_refresh_token,
    refresh_token_key_id = excluded.refresh_token_key_id,
    connected_at = CASE WHEN grants.status = 'revoked'
                        THEN excluded.connected_at ELSE grants.connected_at END,
    updated_at = excluded.updated_at,
    consented_at = greatest(
        excluded.consented_at,
        CASE WHEN grants.status = 'active' THEN coalesce(grants.consented_at, grants.updated_at) END
    )
RETURNING *

-- name: forget_access_tokens
-- What was held under an earlier consent, or before a withdrawal, is erased.
DELETE FROM access_tokens WHERE grant_id = $1

-- name: put_access_token
-- Hold a token. Nothing is written for a grant that changed since it was read, nor over a token
-- that lives longer: a late writer loses.
INSERT INTO access_tokens (grant_id, scope_set, scopes, sealed_access_token, access_token_key_id,
                           obtained_at, expires_at)
SELECT $1, $3, $4, $5, $6, $7, $8
FROM grants WHERE id = $1 AND version = $2 AND status = 'active'
ON CONFLICT (grant_id, scope_set) DO UPDATE SET
    scopes = excluded.scopes,
    sealed_access_token = excluded.sealed_access_token,
    access_token_key_id = excluded.access_token_key_id,
    obtained_at = excluded.obtained_at,
    expires_at = excluded.expires_at
WHERE access_tokens.expires_at <= excluded.expires_at

-- name: is_current
-- Whether a grant is still as it was read, with $3 also its refresh token; locked until the
-- transaction ends.
SELECT EXISTS (
    SELECT FROM grants
    WHERE id = $1 AND version = $2 AND status = 'active'
      AND ($3::bigint IS NULL OR refresh_token_version = $3)
    FOR NO KEY UPDATE
)

-- name: has_refresh_token
-- Whether a grant that has changed since it was read, as by an event that has Google asked anew, still
-- has the refresh token that it had then, for use now or later; locked until the transaction ends.
SELECT EXISTS (
    SELECT FROM grants
    WHERE id = $1 AND refresh_token_version = $2 AND sealed_refresh_token IS NOT NULL
      AND (status = 'active' OR reason = 'account_disabled')
    FOR NO KEY UPDATE
)

-- name: replace_refresh_token
-- Google sent a new refresh token: it replaces the old one of a grant that was found current. The
-- version stays: the access tokens that are held outlive it.
UPDATE grants SET sealed_refresh_token = $2, refresh_token_key_id = $3,
                  refresh_token_version = refresh_token_version + 1, updated_at = $4
WHERE id = $1
RETURNING refresh_token_version

-- name: mark_reauthorization_required
-- Google no longer honours the refresh token that was read. Its ciphertext is kept: an operator's
-- error must stay reversible.
UPDATE grants SET status = 'reauthorization_required', reason = $3, version = version + 1,
                  updated_at = $4
WHERE id = $1 AND version = $2 AND status = 'active' AND refresh_token_version = $5
RETURNING id

-- name: put_lookups
-- By what an event of Google's may name the refresh token that was just stored.
UPDATE refresh_token_lookups SET key_id = $2, prefix = $3, digest = $4 WHERE grant_id = $1

-- name: grants_without_lookups
-- Grants whose values are missing or made with another key than $1, beyond grant $2.
SELECT g.*, l.generation FROM refresh_token_lookups l JOIN grants g ON g.id = l.grant_id
WHERE (l.key_id < $1 OR l.key_id > $1) AND l.grant_id > $2
ORDER BY l.grant_id LIMIT $3

-- name: fill_lookups
-- The same for a refresh token that was stored before, unless it was replaced meanwhile.
UPDATE refresh_token_lookups SET key_id = $3, prefix = $4, digest = $5
WHERE grant_id = $1 AND generation = $2

-- name: find_by_token_prefix
-- The grants whose refresh token begins so, by the values of all keys.
SELECT g.* FROM refresh_token_lookups l JOIN grants g ON g.id = l.grant_id
WHERE l.prefix = ANY ($1::bytea[])

-- name: find_by_token_digest
-- The grants whose refresh token has this hash, by the values of all keys.
SELECT g.* FROM refresh_token_lookups l JOIN grants g ON g.id = l.grant_id
WHERE l.digest = ANY ($1::bytea[])

-- name: lock_grants_of_account
-- All that is connected of one Google account, whoever's; always in the same order.
SELECT * FROM grants WHERE google_sub = $1 AND status <> 'revoked' ORDER BY id FOR UPDATE

-- name: lose_refresh_token
-- Google has ended it, or it is not to be trusted any more: only a new consent mends the grant.
UPDATE grants SET status = 'reauthorization_required', reason = $2, version = version + 1,
                  sealed_refresh_token = NULL, refresh_token_key_id = NULL, updated_at = $3
WHERE id = $1 AND status <> 'revoked'

-- name: hold_back
-- The account is disabled: nothing is handed out, and the refresh token waits for better times.
UPDATE grants SET status = 'reauthorization_required', reason = 'account_disabled',
                  version = version + 1, updated_at = $2
WHERE id = $1 AND status = 'active'

-- name: bring_back
-- The account is enabled again: what was only held back is in use again.
UPDATE grants SET status = 'active', reason = NULL, version = version + 1, updated_at = $2
WHERE id = $1 AND status = 'reauthorization_required' AND reason = 'account_disabled'
  AND sealed_refresh_token IS NOT NULL

-- name: outdate
-- A refresh that is under way must not bring back the access tokens that were just forgotten.
UPDATE grants SET version = version + 1 WHERE id = $1 AND status = 'active'

-- name: note_given_up
-- A refresh token of this account was replaced by the one of another consent, or is about to be.
INSERT INTO given_up_tokens (google_sub, given_up_at) VALUES ($1, $2)
ON CONFLICT (google_sub) DO UPDATE SET given_up_at = excluded.given_up_at

-- name: find_given_up
-- When that was last so, or one was revoked.
SELECT given_up_at FROM given_up_tokens WHERE google_sub = $1

-- name: revocable
-- The grants that a withdrawal ends: all of the user's, or the one of the account named.
SELECT * FROM grants
WHERE user_id = $1 AND status <> 'revoked' AND ($2::text IS NULL OR google_sub = $2)
ORDER BY google_sub

-- name: is_revoked
-- Whether nothing of the user's (of one account, or all) is left that was there at $3. What the user
-- consented to later is none of it.
SELECT NOT EXISTS (
    SELECT FROM grants
    WHERE user_id = $1 AND status <> 'revoked' AND ($2::text IS NULL OR google_sub = $2)
        AND coalesce(consented_at, connected_at) <= $3
) AND NOT EXISTS (
    SELECT FROM pending_consents
    WHERE user_id = $1 AND ($2::text IS NULL OR google_sub = $2) AND created_at <= $3
) AS is_revoked

-- name: revoke
-- The grant ends here and now, and its sealed refresh token is erased.
UPDATE grants SET status = 'revoked', reason = NULL, is_default = false, version = version + 1,
                  sealed_refresh_token = NULL, refresh_token_key_id = NULL, updated_at = $2
WHERE id = $1 AND status <> 'revoked'
RETURNING *

-- name: account_is_shared
-- Whether a live grant of somebody else needs this Google account, now or when it is enabled again;
-- or a consent that may become one.
SELECT EXISTS (
    SELECT FROM grants
    WHERE google_sub = $1 AND id <> $2 AND (status = 'active' OR reason = 'account_disabled')
) OR EXISTS (
    SELECT FROM pending_consents WHERE google_sub = $1 AND expires_at > $3
)

-- name: put_revocation
-- Google is to be told; the token is kept, sealed for this purpose, until it has answered.
INSERT INTO pending_revocations (id, google_sub, sealed_token, token_key_id, origin,
                                 next_attempt_at, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $6)

-- name: drop_revocations
-- The account was connected again: revoking an older token now would end the new grant too. A try
-- whose answer was lost may have told Google all the same.
WITH dropped AS (DELETE FROM pending_revocations WHERE google_sub = $1 RETURNING google_sub)
INSERT INTO given_up_tokens (google_sub, given_up_at) SELECT DISTINCT google_sub, $2::timestamptz FROM dropped
ON CONFLICT (google_sub) DO UPDATE SET given_up_at = excluded.given_up_at

-- name: claim_revocations
-- Take some that are due, out of the others' sight until $2; a claimant that dies lets go then. As an
-- array they are chosen once: a join may choose again, past what is locked by then.
UPDATE pending_revocations SET next_attempt_at = $2, claimed_until = $2, attempts = attempts + 1
WHERE id = ANY(ARRAY(
    SELECT id FROM pending_revocations WHERE next_attempt_at <= $1
    ORDER BY next_attempt_at LIMIT $3 FOR UPDATE SKIP LOCKED
))
RETURNING *

-- name: finish_revocation
-- Google has answered; and may well tell of what it was told. Noted even if the row is gone by now:
-- whoever took it away did not know that Google was being told.
WITH finished AS (DELETE FROM pending_revocations WHERE id = $1)
INSERT INTO given_up_tokens AS known (google_sub, given_up_at, revoked_at)
VALUES ($2, $3, clock_timestamp())
ON CONFLICT (google_sub) DO UPDATE SET
    given_up_at = excluded.given_up_at,
    revoked_at = greatest(known.revoked_at, excluded.revoked_at)

-- name: postpone_revocation
-- No answer came, so that Google may have carried it out or not; tell it again later.
WITH postponed AS (
    UPDATE pending_revocations SET next_attempt_at = $4, claimed_until = NULL WHERE id = $1
)
INSERT INTO given_up_tokens AS known (google_sub, given_up_at, revoked_at)
VALUES ($2, $3, clock_timestamp())
ON CONFLICT (google_sub) DO UPDATE SET
    given_up_at = excluded.given_up_at,
    revoked_at = greatest(known.revoked_at, excluded.revoked_at)

-- name: is_ended_at_google
-- Whether Google is being told just now to end this account's authorization, or was told since $3,
-- by the database's own clock.
SELECT EXISTS (
    SELECT FROM pending_revocations WHERE google_sub = $1 AND claimed_until > $2
) OR EXISTS (
    SELECT FROM given_up_tokens WHERE google_sub = $1 AND revoked_at >= $3::timestamptz
)

-- name: touch
-- When grants were last used, and by which caller; never backwards. A row that is in somebody's hands
-- is passed over and comes back, so that nobody waits for another, and no two for each other.
WITH later AS (
    SELECT g.id, used.at, used.by
    FROM unnest($1::uuid[], $2::timestamptz[], $3::text[]) AS used (id, at, by)
    JOIN grants g ON g.id = used.id
    WHERE g.last_used_at IS NULL OR g.last_used_at < used.at
), free AS (
    SELECT g.id FROM grants g WHERE g.id = ANY (ARRAY(SELECT id FROM later))
    ORDER BY g.id FOR NO KEY UPDATE SKIP LOCKED
), noted AS (
    UPDATE grants g SET last_used_at = later.at, last_used_by = later.by
    FROM later, free
    WHERE g.id = later.id AND g.id = free.id
      AND (g.last_used_at IS NULL OR g.last_used_at < later.at)
)
SELECT id FROM later WHERE id NOT IN (SELECT id FROM free)

-- name: count_by_status
-- For the gauge.
SELECT status, count(*) AS grants FROM grants GROUP BY status
UNION ALL
SELECT 'pending_confirmation', count(*) FROM pending_consents

-- name: changed_since
-- The changes stamped at or after $1 (none when that is unknown), the database's time, and its
-- timeline, which is another after each promotion; one row without a grant when nothing changed.
-- The timeline is NULL where $2 is false, for a server that can't tell it. On a standby it fails
-- (55000) in any case: what that knows is no news of the primary.
SELECT clock_timestamp() AS now,
       CASE WHEN $2 OR pg_is_in_recovery()
            THEN left(pg_walfile_name(pg_current_wal_lsn()), 8) END AS timeline,
       g.id, g.user_id, g.google_sub, g.version, g.status, g.reason, g.updated_at, g.changed_at
FROM (SELECT) AS one
LEFT JOIN grants g ON g.changed_at >= $1

-- name: grants_by_id
-- Grants as they are now, whatever their status.
SELECT * FROM grants WHERE id = ANY ($1::uuid[])

-- name: take_lease
-- Become the one who asks Google, unless somebody is, or was told to wait. A lease that seems to
-- last for many minutes is from before the clock was set back, or before a failover to a server
-- with another idea of the time. The first fence is the time in microseconds: higher than any that
-- the row had before it was purged.
INSERT INTO refresh_leases AS lease (grant_id, scope_set, fence, ends_at)
VALUES ($1, $2, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, $4)
ON CONFLICT (grant_id, scope_set) DO UPDATE SET
    fence = lease.fence + 1, ends_at = excluded.ends_at, trouble = NULL
WHERE lease.ends_at <= $3 OR lease.ends_at > $3 + interval '2 minutes'
RETURNING fence

-- name: find_lease
-- Until when the lease that stood in the way lasts, and why, if its holder failed.
SELECT trouble, ends_at FROM refresh_leases WHERE grant_id = $1 AND scope_set = $2

-- name: others_refresh
-- Whether another refresh of the grant, for other scopes, is under way.
SELECT EXISTS (
    SELECT FROM refresh_leases
    WHERE grant_id = $1 AND scope_set <> $2 AND trouble IS NULL
      AND ends_at > $3 AND ends_at <= $3 + interval '2 minutes'
)

-- name: is_holder
-- Whether nobody has taken the lease over; it can't be until the transaction ends.
SELECT EXISTS (
    SELECT FROM refresh_leases
    WHERE grant_id = $1 AND scope_set = $2 AND fence = $3 FOR UPDATE
)

-- name: end_lease
-- The work is done, or given up: the next may begin at once, or after a pause that has a reason.
UPDATE refresh_leases SET ends_at = $4, trouble = $5
WHERE grant_id = $1 AND scope_set = $2 AND fence = $3
RETURNING pg_notify('broker_refreshes', $1::text)

-- name: accounts_of_user
-- The accounts that a withdrawal concerns, in the order in which they are locked.
SELECT google_sub FROM grants
WHERE user_id = $1 AND status <> 'revoked' AND ($2::text IS NULL OR google_sub = $2)
UNION
SELECT google_sub FROM pending_consents
WHERE user_id = $1 AND ($2::text IS NULL OR google_sub = $2)
ORDER BY google_sub

-- name: put_pending_consent
-- A consent that waits for its confirmation.
INSERT INTO pending_consents (link_id, caller, user_id, google_sub, email, client_id, scopes,
                              seen_version, sealed_refresh_token, refresh_token_key_id,
                              sealed_access_token, access_token_key_id, access_scopes,
                              access_obtained_at, access_expires_at, code_hash, created_at,
                              expires_at, exchanged_after, lookup_key_id, lookup_prefix,
                              lookup_digest)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
        $21, $22)

-- name: account_of_lost_consent
-- A link is completed once, so what it has here already was stored by an attempt that did not learn
-- of it. The user is locked: the row stays what it is.
SELECT google_sub FROM pending_consents WHERE link_id = $1 AND caller = $2 AND user_id = $3

-- name: take_lost_consent
-- It gives way to what the link brought now.
DELETE FROM pending_consents WHERE link_id = $1 AND caller = $2 AND user_id = $3 RETURNING *

-- name: find_pending_consent
-- Whose account a link brought, while it can still be confirmed by the caller that made the link.
SELECT user_id, google_sub FROM pending_consents
WHERE link_id = $1 AND caller = $2 AND expires_at > $3

-- name: lock_pending_consent
-- The same, for whoever is to decide about it; of two at once the later one finds nothing.
SELECT * FROM pending_consents WHERE link_id = $1 AND caller = $2 AND expires_at > $3 FOR UPDATE

-- name: note_wrong_code
-- A code that was wrong: there are few attempts.
UPDATE pending_consents SET wrong_codes = wrong_codes + 1 WHERE link_id = $1
RETURNING wrong_codes

-- name: pending_consents_of_users
-- What waits for a confirmation, the newest first.
SELECT * FROM pending_consents WHERE user_id = ANY ($1) AND expires_at > $2
ORDER BY created_at DESC, link_id

-- name: expired_consents
-- What was not confirmed in time, some at a time.
SELECT link_id, user_id, google_sub FROM pending_consents WHERE expires_at <= $1
ORDER BY expires_at LIMIT $2

-- name: take_expired_consent
-- It ends; of several replicas that see to it, one gets the row.
DELETE FROM pending_consents WHERE link_id = $1 AND expires_at <= $2 RETURNING *

-- name: take_pending_consent
-- It ends, whether it becomes a grant or not.
DELETE FROM pending_consents WHERE link_id = $1 RETURNING *

-- name: take_pending_consents_of_user
-- A withdrawal ends what waits as well: all of the user's, or those of the account named.
DELETE FROM pending_consents
WHERE user_id = $1 AND ($2::text IS NULL OR google_sub = $2)
RETURNING *

-- name: account_is_held
-- Whether anybody's live grant, or a consent that may become one, needs this account.
SELECT EXISTS (
    SELECT FROM grants
    WHERE google_sub = $1 AND (status = 'active' OR reason = 'account_disabled')
) OR EXISTS (
    SELECT FROM pending_consents WHERE google_sub = $1 AND expires_at > $2
)

-- name: waiting_consents_of_account
-- What waits of one Google account, whoever's; always in the same order.
SELECT * FROM pending_consents WHERE google_sub = $1 ORDER BY link_id FOR UPDATE

-- name: waiting_consents_by_prefix
-- What waits with a refresh token that begins so, by the values of all keys.
SELECT * FROM pending_consents WHERE lookup_prefix = ANY ($1::bytea[])

-- name: waiting_consents_by_digest
-- What waits with a refresh token that has this hash, by the values of all keys.
SELECT * FROM pending_consents WHERE lookup_digest = ANY ($1::bytea[])

-- name: waiting_consents_on_grant
-- What waits without a refresh token of its own: it counts on the one that the grant has.
SELECT * FROM pending_consents
WHERE user_id = $1 AND google_sub = $2 AND sealed_refresh_token IS NULL

-- name: forget_waiting_access_token
-- The first request after the confirmation makes Google say how it stands.
UPDATE pending_consents SET sealed_access_token = NULL, access_token_key_id = NULL,
                            access_scopes = NULL, access_obtained_at = NULL, access_expires_at = NULL
WHERE link_id = $1 AND sealed_access_token IS NOT NULL

-- name: waiting_consents_without_lookups
-- Those whose values are missing or made with another key than $1, beyond link $2.
SELECT * FROM pending_consents
WHERE sealed_refresh_token IS NOT NULL AND lookup_key_id IS DISTINCT FROM $1 AND link_id > $2
ORDER BY link_id LIMIT $3

-- name: waiting_consents_within
-- What waits of this user, account and client with no scope beyond these.
SELECT * FROM pending_consents
WHERE user_id = $1 AND google_sub = $2 AND client_id = $3 AND scopes <@ $4::text[]
  AND expires_at > $5
ORDER BY link_id FOR UPDATE

-- name: replace_waiting_token
-- A newer refresh token that can fetch all that waits here.
UPDATE pending_consents SET sealed_refresh_token = $2, refresh_token_key_id = $3,
                            exchanged_after = $4,
                            lookup_key_id = $5, lookup_prefix = $6, lookup_digest = $7
WHERE link_id = $1

-- name: fill_waiting_lookups
-- By what an event may name the refresh token of a consent that waits, unless the link has brought
-- another consent meanwhile, or the consent has got another token.
UPDATE pending_consents SET lookup_key_id = $2, lookup_prefix = $3, lookup_digest = $4
WHERE link_id = $1 AND sealed_refresh_token = $5

-- name: keys_in_use
-- How much of what is stored is sealed with which key. What waits for a person to go on is over
-- within the hour; the rest stays.
SELECT kind, key_id, count(*) AS sealed FROM (
    SELECT 'refresh tokens' AS kind, refresh_token_key_id AS key_id FROM grants
    UNION ALL SELECT 'access tokens', access_token_key_id FROM access_tokens
    WHERE expires_at > now()
    UNION ALL SELECT 'revocations that wait', token_key_id FROM pending_revocations
    UNION ALL SELECT 'consents that wait', refresh_token_key_id FROM pending_consents
    UNION ALL SELECT 'consents that wait', access_token_key_id FROM pending_consents
    UNION ALL SELECT 'trips to Google', secrets_key_id FROM consent_transactions
) AS stored
WHERE key_id IS NOT NULL GROUP BY kind, key_id ORDER BY kind, key_id

-- name: grants_to_reseal
-- Refresh tokens under another key than $1, beyond grant $2.
SELECT * FROM grants WHERE refresh_token_key_id <> $1 AND id > $2 ORDER BY id LIMIT $3

-- name: reseal_grants
-- The same tokens under another key, but where the row has another token by now, or is in somebody's
-- hands: those wait for the next time. Neither version is raised: nothing changes for whoever has
-- read the row.
WITH free AS (
    SELECT g.id, new.ciphertext
    FROM unnest($1::uuid[], $2::bytea[], $3::bytea[]) AS new (id, was, ciphertext)
    JOIN grants g ON g.id = new.id AND g.sealed_refresh_token = new.was
    FOR NO KEY UPDATE OF g SKIP LOCKED
)
UPDATE grants g SET sealed_refresh_token = free.ciphertext, refresh_token_key_id = $4
FROM free WHERE g.id = free.id
RETURNING g.id

-- name: put_many_lookups
-- By what an event of Google's may name each of these grants' refresh tokens.
UPDATE refresh_token_lookups l SET key_id = $2, prefix = made.prefix, digest = made.digest
FROM unnest($1::uuid[], $3::bytea[], $4::bytea[]) AS made (grant_id, prefix, digest)
WHERE l.grant_id = made.grant_id

-- name: access_tokens_to_reseal
-- Access tokens that live, under another key than $1, beyond scope set $3 of grant $2; with their
-- grants.
SELECT g.*, a.scope_set, a.sealed_access_token, a.access_token_key_id, a.scopes AS token_scopes,
       a.obtained_at, a.expires_at
FROM access_tokens a JOIN grants g ON g.id = a.grant_id
WHERE a.access_token_key_id <> $1 AND a.expires_at > now() AND (a.grant_id, a.scope_set) > ($2, $3)
ORDER BY a.grant_id, a.scope_set LIMIT $4

-- name: reseal_access_tokens
-- The same for access tokens.
WITH free AS (
    SELECT a.grant_id, a.scope_set, new.ciphertext
    FROM unnest($1::uuid[], $2::text[], $3::bytea[], $4::bytea[])
        AS new (grant_id, scope_set, was, ciphertext)
    JOIN access_tokens a ON a.grant_id = new.grant_id AND a.scope_set = new.scope_set
        AND a.sealed_access_token = new.was
    FOR NO KEY UPDATE OF a SKIP LOCKED
)
UPDATE access_tokens a SET sealed_access_token = free.ciphertext, access_token_key_id = $5
FROM free WHERE a.grant_id = free.grant_id AND a.scope_set = free.scope_set
RETURNING a.grant_id

-- name: revocations_to_reseal
-- Revocations that wait, under another key than $1, beyond $2.
SELECT * FROM pending_revocations WHERE token_key_id <> $1 AND id > $2 ORDER BY id LIMIT $3

-- name: reseal_revocation
-- As with refresh tokens.
UPDATE pending_revocations SET sealed_token = $3, token_key_id = $4
WHERE id = $1 AND sealed_token = $2

-- name: pages_of_table
-- How long a walk through it is.
SELECT pg_relation_size($1::text::regclass) / current_setting('block_size')::integer

-- name: purge_access_tokens
-- Those on some pages that expired before $3, but what is in somebody's hands.
DELETE FROM access_tokens WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM access_tokens
    WHERE ctid >= $1::tid AND ctid < $2::tid AND expires_at < $3 FOR UPDATE SKIP LOCKED
))

-- name: purge_leases
-- The same for leases that ended before $3.
DELETE FROM refresh_leases WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM refresh_leases
    WHERE ctid >= $1::tid AND ctid < $2::tid AND ends_at < $3 FOR UPDATE SKIP LOCKED
))

-- name: purge_grants
-- The same for grants that were revoked before $3; connected again, they are new ones.
DELETE FROM grants WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM grants
    WHERE ctid >= $1::tid AND ctid < $2::tid AND status = 'revoked' AND updated_at < $3
    FOR UPDATE SKIP LOCKED
))
