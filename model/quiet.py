"""A quiet point: all faults are repaired, and then everything must agree.

That is: the tables, the tokens in them, the tokens that Google accepts, each replica's responses,
the audit trail, and the model.
"""

import time
from collections.abc import Callable, Mapping

from model.operations import ask_token, describe
from model.run import Finding, Run
from model.states import ACTIVE, DEAD, ENDED, HELD_BACK, NEVER, REVOKED, WAITING, Key, State
from model.stored import Stored, StoredGrant, read_stored
from model.system import user_path
from tests.support.processes import wait_until

_DELIVERY_SECONDS = 60.0
_AGREE_SECONDS = 30.0
"""The longest back-off and lease after a fault; a defect lasts for an hour."""
_RESTORED_SECONDS = 2.5
"""Restoring has ended if nothing was restored for this long."""
_POLL_SECONDS = 0.05
_AUDIT_EVERY = 5
"""Quiet points."""

_DUE_NOW = """
    UPDATE pending_revocations SET next_attempt_at = now(), claimed_until = NULL
    WHERE next_attempt_at > now() + interval '1 second'
"""
"""Make claimed and postponed revocations due: no replica works on them any more."""


def settle(run: Run) -> str:
    """Repair everything, and wait until every replica works."""
    system = run.system
    for ref in list(run.underway):
        run.finish(ref)
    system.google.faults.clear()
    system.google.holds.release_all()
    if not system.cluster.is_up:
        system.cluster.restart()
    if system.cluster.stream is not None:
        system.cluster.stream.heal()
    for replica in system.replicas:
        if replica.is_cut:
            replica.heal()
    down = [replica for replica in system.replicas if not replica.is_up]
    for replica in down:
        replica.process.launch()
    for replica in down:
        replica.process.wait_until_ready()
    system.wait_until_ready()
    return "ready"


def check(run: Run) -> str:
    """Raise `Finding` unless everything agrees; the model then knows the actual states."""
    settle(run)
    run.ask_what_is_due(wait=True)
    if run.has_failed_over:
        _wait_until_restored(run)
        run.has_failed_over = False
    wait_until_delivered(run)
    run.checks["quiet points"] += 1
    stored = read_stored(run.system.cluster.url, run.system.secret_keys)
    _compare_with_model(run, stored)
    _compare_with_google(run, stored)
    _compare_replicas(run)
    # A replica may just have found out that a token is revoked.
    stored = read_stored(run.system.cluster.url, run.system.secret_keys)
    _compare_with_model(run, stored)
    for replica in run.system.replicas:
        output = replica.process.output
        if "Traceback" in output:
            at = output.index("Traceback")
            raise Finding(f"a traceback: {output[max(0, at - 500) : at + 3000]}")
    if run.checks["quiet points"] % _AUDIT_EVERY == 0:
        verify_audit(run)
    if run.system.cluster.standby is not None:
        run.system.cluster.catch_up()
        run.possible.falls_behind()
    run.is_calm = True
    alive = sum(grant.status == ACTIVE for grant in stored.grants)
    return f"{len(stored.grants)} grants, {alive} active, {len(stored.consents)} wait"


def verify_audit(run: Run) -> None:
    """Verify the audit trail."""
    said = run.system.broker("audit", "verify")
    if "intact: " not in said:
        raise Finding(f"the audit trail: {said}")


def wait_until_delivered(run: Run, *, within: float = _DELIVERY_SECONDS) -> None:
    """Wait until every revocation has been delivered to Google."""
    deadline = time.monotonic() + within
    while count := run.system.sql("SELECT count(*) FROM pending_revocations"):
        if count == "0":
            return
        if time.monotonic() > deadline:
            raise Finding(f"{count} revocations were not delivered within {within} s")
        if not run.is_calm:
            run.system.sql(_DUE_NOW)
        time.sleep(_POLL_SECONDS)


def _wait_until_restored(run: Run) -> None:
    """Wait until replicas have repeated the revocations that a failover lost."""
    before, since = "", time.monotonic()
    while time.monotonic() - since < _RESTORED_SECONDS:
        now = run.system.sql("SELECT id, status, version FROM grants ORDER BY id")
        if now != before:
            before, since = now, time.monotonic()
        time.sleep(_POLL_SECONDS)


# The model.


def _compare_with_model(run: Run, stored: Stored) -> None:
    names = {run.system.sub(account): account for account in run.accounts}
    rows: dict[Key, StoredGrant] = {
        ("grant", grant.user, names[grant.sub]): grant
        for grant in stored.grants
        if grant.sub in names
    }
    for key in run.grants:
        row = rows.get(key)
        _one_of(run, key, row.status if row else NEVER, row.scopes if row else frozenset())
    links = {consent.link_id: ref for ref, consent in run.pending.items() if consent.link_id}
    pending = {links.get(c.link_id): c for c in stored.consents if c.sub in names}
    if None in pending:
        raise Finding("a pending consent that the model does not know")
    for ref in list(run.pending):
        consent = pending.get(ref)
        scopes = consent.scopes if consent else frozenset[str]()
        _one_of(run, ("consent", ref), WAITING if consent else ENDED, scopes)
        if consent is None:
            del run.pending[ref]
            run.may_be_dead.discard(("consent", ref))


def _one_of(run: Run, key: Key, status: str, scopes: frozenset[str]) -> None:
    """Check that the state is one that the model allows, and tell the model which."""
    run._expand()
    possible = [state for state in run.possible[key] if state.status == status]
    if not possible:
        others = sorted(run.possible.statuses(key))
        raise Finding(f"{key} is {status} in the table; in the model it is {others}")
    if status not in (NEVER, REVOKED, ENDED) and not any(
        state.least <= scopes <= state.most for state in possible
    ):
        bounds = [(sorted(state.least), sorted(state.most)) for state in possible]
        raise Finding(f"{key} has the scopes {sorted(scopes)}; in the model {bounds}")
    run.possible.put(key, [State(status, scopes, scopes)])


# Google.


def _compare_with_google(run: Run, stored: Stored) -> None:
    google = run.system.google
    with google.state.lock:
        alive = {value: token.sub for value, token in google.state.refresh_tokens.items()}
        access = dict(google.state.access_tokens)
    names = {run.system.sub(account): account for account in run.accounts}
    links = {consent.link_id: ref for ref, consent in run.pending.items()}
    held: list[tuple[Key, str, str | None]] = [
        (("grant", grant.user, names[grant.sub]), grant.sub, grant.refresh_token)
        for grant in stored.grants
        if grant.status in (ACTIVE, HELD_BACK) and grant.sub in names
    ]
    held += [
        (("consent", links[consent.link_id]), consent.sub, consent.refresh_token)
        for consent in stored.consents
        if consent.sub in names
    ]
    for key, sub, token in held:
        if token is None and key[0] == "consent":
            continue
        if token is not None and alive.get(token) == sub:
            run.may_be_dead.discard(key)
        elif key not in run.may_be_dead:
            raise Finding(f"{key} is active, and its refresh token is revoked at Google")
    for row in stored.access_tokens:
        token_there = access.get(row.value)
        if token_there is not None and token_there.sub != row.sub:
            raise Finding(f"{row.user} has an access token of another account")
    holders = {sub for _, sub, _ in held}
    for sub in (set(alive.values()) & set(names)) - holders:
        account = names[sub]
        if account not in run.may_be_orphaned:
            count = sum(1 for owner in alive.values() if owner == sub)
            raise Finding(f"{count} refresh tokens of {account} are valid, and no grant has them")
        # Known to be lost. From here on it is as if its owner had revoked it.
        google.revoke_account(f"{account}@example.com")
    run.may_be_orphaned = run.accounts_without_valid_token()


# The replicas.


def _compare_replicas(run: Run) -> None:
    for number in range(len(run.system.replicas)):
        for user in run.users:
            _agrees(run, lambda n=number, u=user: _list_of(run, n, u))  # type: ignore[misc]
            for account in run.accounts:
                for caller in run.system.keys:
                    _agrees(
                        run,
                        lambda n=number, u=user, a=account, c=caller: _token_of(run, n, u, a, c),  # type: ignore[misc]
                    )


def _agrees(run: Run, look: Callable[[], str | None]) -> None:
    """Without faults immediately, except for a change in transit; else soon."""
    run.checks["comparisons"] += 1
    deadline = time.monotonic() + _AGREE_SECONDS
    while (wrong := look()) is not None:
        if time.monotonic() > deadline:
            raise Finding(wrong)
        time.sleep(_POLL_SECONDS)


def _token_of(run: Run, replica: int, user: str, account: str, caller: str) -> str | None:
    """Return what is wrong with this response, if anything."""
    seen = ask_token(run.system, replica, user, account, caller)
    if seen.status == 503 or seen.status is None:
        return (
            f"replica {replica}, {caller}, {user} with {account}: {describe(seen)} at a quiet point"
        )
    key: Key = ("grant", user, account)
    if seen.status == 200 and ACTIVE not in run.possible.statuses(key):
        is_now = sorted(run.possible.statuses(key))
        return f"replica {replica}, {caller}: a token for {user} with {account}, which is {is_now}"
    before, run.is_calm = run.is_calm, True
    try:
        run.judge(seen)
        if seen.status == 200 and key not in run.may_be_dead:
            _works_at_google(run, str(seen.body["access_token"]), run.system.sub(account))
    except Finding as finding:
        return str(finding)
    finally:
        run.is_calm = before
    return None


def _works_at_google(run: Run, token: str, sub: str) -> None:
    url = f"{run.system.google.base_url}/tokeninfo"
    said = run.system.http.get(url, params={"access_token": token})
    if said.status_code != 200 or said.json()["sub"] != sub:
        raise Finding(f"a token that was returned is rejected: {said.status_code} {said.text}")


def _list_of(run: Run, replica: int, user: str) -> str | None:
    answer = run.system.http.get(
        run.system.internal(replica, user_path(user, "grants")),
        headers=run.system.headers("planner"),
    )
    if answer.status_code != 200:
        return f"replica {replica} lists {user}: {answer.status_code} {answer.text}"
    said = {g["account"]["sub"]: _SAID[g["status"]] for g in answer.json()["grants"]}
    for account in run.accounts:
        wanted = {_LISTED[status] for status in run.possible.statuses(("grant", user, account))}
        if ("grant", user, account) in run.may_be_dead and ACTIVE in wanted:
            wanted.add(DEAD)
        if run.does_wait(user, account):
            # It is listed instead of the one that does not work.
            wanted = {status if status == ACTIVE else WAITING for status in wanted}
        listed = said.get(run.system.sub(account), NEVER)
        if listed not in wanted:
            return f"replica {replica} lists {user} with {account} as {listed}, not {wanted}"
    return None


_SAID: Mapping[str, str] = {
    "active": ACTIVE,
    "reauthorization_required": DEAD,
    "revoked": REVOKED,
    "pending_confirmation": WAITING,
}
_LISTED: Mapping[str, str] = {
    ACTIVE: ACTIVE,
    HELD_BACK: DEAD,
    DEAD: DEAD,
    REVOKED: REVOKED,
    NEVER: NEVER,
}

__all__ = ["check", "settle", "verify_audit", "wait_until", "wait_until_delivered"]
