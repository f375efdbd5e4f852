"""Operations of users, callers and Google: each calls the real system and returns its effect.

No operation changes the model, so that several may run concurrently.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2

from devstack.google_standin import Fault
from devstack.google_standin.authorization import ShownError
from devstack.google_standin.security_events import MEDIA_TYPE
from model.states import (
    ACTIVE,
    DEAD,
    ENDED,
    HELD_BACK,
    NEVER,
    REVOKED,
    WAITING,
    Effects,
    Key,
    State,
    Transform,
    becomes,
    connected,
    only,
    perhaps,
)
from model.system import CALLERS, SCOPES, System, user_path
from tests.support.world import RETURN_TO

_TRIPS = 3
"""How often a browser may be redirected to Google for one consent."""
_FORCED_TTL = 86_400
"""Longer than any token lives, so that a request makes the broker refresh."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A replica's response to a token request."""

    replica: int
    user: str
    account: str
    caller: str
    sent_at: float
    """`time.monotonic()`."""
    status: int | None
    """None without a response."""
    body: Mapping[str, Any]
    asked: frozenset[str] | None = None
    """The scopes that the request was narrowed to, if any."""


@dataclass(frozen=True, slots=True)
class ConsentToConfirm:
    """What is needed to confirm a pending consent."""

    user: str
    account: str
    caller: str
    scopes: tuple[str, ...]
    link_id: str
    code: str
    """Empty if the response was lost."""


@dataclass
class Report:
    """The outcome of an operation, and its possible effects."""

    outcome: str
    effects: Effects = field(default_factory=dict)
    renewed: Key | None = None
    """The grant or consent for which Google issued a refresh token."""
    renewed_by: str | None = None
    """The pending consent from which that token came."""
    ended_at_google: frozenset[str] = frozenset()
    """Accounts whose authorization Google revoked."""
    retired: tuple[str, str] | None = None
    """The user and account of a grant whose refresh token Google has rotated."""
    in_doubt: frozenset[str] = frozenset()
    """Accounts whose newest token may be lost, if there was a fault meanwhile."""
    seen: Sequence[Seen] = ()
    pending: Mapping[str, ConsentToConfirm] = field(default_factory=dict)


@dataclass(frozen=True)
class Context:
    """What operations read: the system, and the model's knowledge when they begin."""

    system: System
    users: Sequence[str]
    accounts: Sequence[str]
    pending: Mapping[str, ConsentToConfirm]
    possible: Mapping[Key, frozenset[State]]

    def most(self, key: Key) -> frozenset[str]:
        """Return all scopes that a grant or consent may have, unless it has ended."""
        over = (NEVER, REVOKED, ENDED)
        states = [state.most for state in self.possible.get(key, ()) if state.status not in over]
        return frozenset().union(*states)


def connect(
    context: Context,
    *,
    user: str,
    account: str,
    caller: str,
    scopes: Sequence[str],
    replica: int,
    back_at: int,
    pending_as: str | None = None,
) -> Report:
    """Let a user go through a consent; the callback may reach another replica.

    `pending_as` names the pending consent, if it must be confirmed.
    """
    system = context.system
    link_id, status, code = "", "no_link", ""
    names = [SCOPES[scope] for scope in scopes]
    try:
        made = system.http.post(
            system.internal(replica, user_path(user, "connect-links")),
            json={"scopes": names, "return_to": RETURN_TO, "confirm": pending_as is not None},
            headers=system.headers(caller),
        )
        if made.status_code != 201:
            return Report(f"no link: {_code(made)}")
        link_id = made.json()["id"]
        status, code = _go(system, made.json()["url"], account, replica, back_at)
    except (httpx2.HTTPError, ShownError) as error:
        status = type(error).__name__
    return _consented(
        ConsentToConfirm(user, account, caller, tuple(names), link_id, code),
        status,
        pending_as,
        context,
    )


def _go(system: System, url: str, account: str, replica: int, back_at: int) -> tuple[str, str]:
    """Return the outcome and the confirmation code."""
    # Nothing here uses https, and CA certificates are slow to load.
    with httpx2.Client(timeout=30, trust_env=False, verify=False) as browser:
        answer = browser.get(system.public(replica, url))
        for _ in range(_TRIPS):
            location = answer.headers.get("location", "")
            if not location.startswith(system.google.base_url):
                break
            back = system.google.consent(location, f"{account}@example.com")
            answer = browser.get(system.public(back_at, back))
        location = answer.headers.get("location", "")
        brought = {n: v[0] for n, v in parse_qs(urlsplit(location).query).items()}
        status = brought.get("status", f"page {answer.status_code}")
        return status, brought.get("confirmation", "")


def _consented(
    consent: ConsentToConfirm,
    status: str,
    ref: str | None,
    context: Context,
) -> Report:
    grant: Key = ("grant", consent.user, consent.account)
    asked = frozenset(consent.scopes)
    if ref is None:
        transform = connected(asked, asked)
        if status == "connected":
            return Report(status, {grant: transform}, renewed=grant)
        effects: Effects = {grant: perhaps(transform)} if status != "failed" else {}
        return Report(status, effects, in_doubt=frozenset({consent.account}))
    key: Key = ("consent", ref)
    # Scopes that the account granted before are requested again.
    reach = asked | context.most(grant)
    for other_ref, other in context.pending.items():
        if (other.user, other.account, other.caller) == (
            consent.user, consent.account, consent.caller
        ):  # fmt: skip
            reach |= context.most(("consent", other_ref))
    states = [State(WAITING, asked, reach)]
    if status != "connected":
        states.append(State(ENDED))
    return Report(
        status,
        {key: lambda _: states},
        renewed=key if status == "connected" else None,
        in_doubt=frozenset({consent.account}) if status != "connected" else frozenset(),
        pending={ref: consent},
    )


def confirm(context: Context, *, ref: str, replica: int) -> Report:
    """Let the caller confirm a pending consent."""
    consent = context.pending.get(ref)
    if consent is None or not consent.code:
        return Report("not known")
    system = context.system
    answer = _ask(
        system,
        "POST",
        system.internal(replica, f"/v1/connect-links/{consent.link_id}/confirm"),
        consent.caller,
        json={"code": consent.code},
    )
    key: Key = ("consent", ref)
    grant: Key = ("grant", consent.user, consent.account)
    takes_effect = connected(consent.scopes, {*consent.scopes, *context.most(key)})
    if answer is not None and answer.status_code == 200:
        effects = {key: becomes(ENDED), grant: takes_effect}
        return Report("200", effects, renewed=grant, renewed_by=ref)
    if answer is not None and answer.status_code == 409:
        return Report("409", {key: becomes(ENDED)})
    return Report(
        _code(answer),
        {key: perhaps(becomes(ENDED)), grant: perhaps(takes_effect)},
        in_doubt=frozenset({consent.account}),
    )


def revoke(context: Context, *, user: str, replica: int, account: str | None = None) -> Report:
    """Revoke one account or all."""
    system = context.system
    path = "grants" if account is None else f"grants/{system.sub(account)}"
    answer = _ask(system, "DELETE", system.internal(replica, user_path(user, path)), "planner")
    accounts = context.accounts if account is None else [account]
    effects: dict[Key, Transform] = {
        ("grant", user, each): becomes(REVOKED, unless=[NEVER]) for each in accounts
    }
    effects |= {
        ("consent", ref): becomes(ENDED)
        for ref, consent in context.pending.items()
        if consent.user == user and consent.account in accounts
    }
    if answer is not None and answer.status_code == 204:
        return Report("204", effects)
    return Report(_code(answer), {key: perhaps(effect) for key, effect in effects.items()})


def token(
    context: Context,
    *,
    user: str,
    account: str,
    caller: str,
    replica: int,
    fresh: bool = False,
    scope: str | None = None,
) -> Report:
    """Request a token; `fresh` makes the broker refresh it, `scope` narrows it."""
    query: dict[str, str | int] = {"min_ttl": _FORCED_TTL} if fresh else {}
    if scope is not None:
        query["scope"] = SCOPES[scope]
    seen = ask_token(context.system, replica, user, account, caller, **query)
    return Report(describe(seen), seen=[seen])


def batch(context: Context, *, caller: str, replica: int) -> Report:
    """Request all users' tokens for all accounts in one batch."""
    system = context.system
    wanted = [(user, account) for user in context.users for account in context.accounts]
    requests = [{"user_id": user, "account": system.sub(account)} for user, account in wanted]
    sent_at = time.monotonic()
    url = system.internal(replica, "/v1/tokens")
    answer = _ask(system, "POST", url, caller, json={"requests": requests})
    if answer is None or answer.status_code != 200:
        return Report(_code(answer))
    seen = []
    for (user, account), result in zip(wanted, answer.json()["results"], strict=True):
        problem = result.get("error")
        status = 200 if problem is None else int(problem["status"])
        seen.append(Seen(replica, user, account, caller, sent_at, status, problem or result))
    return Report(f"{sum(each.status == 200 for each in seen)} tokens", seen=seen)


def ask_token(
    system: System, replica: int, user: str, account: str, caller: str, **more: str | int
) -> Seen:
    """Return this replica's response."""
    query: dict[str, str | int] = {"account": system.sub(account), **more}
    sent_at = time.monotonic()
    url = system.internal(replica, user_path(user, "token"))
    answer = _ask(system, "GET", url, caller, params=query)
    status = None if answer is None else answer.status_code
    body = {} if answer is None else answer.json()
    asked = frozenset({str(more["scope"])}) if "scope" in more else None
    return Seen(replica, user, account, caller, sent_at, status, body, asked)


def rotate(
    context: Context,
    *,
    user: str,
    account: str,
    caller: str,
    replica: int,
    retire_old: bool = True,
    hold: str | None = None,
) -> Report:
    """Refresh with rotation of the refresh token; `hold` delays Google's response."""
    google = context.system.google
    planned = google.faults.next(
        "token",
        Fault.rotate_refresh_token(retire_old=retire_old, hold=hold),
        account=context.system.sub(account),
        grant_type="refresh_token",
    )
    try:
        report = token(
            context, user=user, account=account, caller=caller, replica=replica, fresh=True
        )
    finally:
        planned.remaining = 0
    retired = (user, account) if retire_old else None
    return replace(report, in_doubt=frozenset({account}), retired=retired)


def user_revokes_at_google(context: Context, *, account: str) -> Report:
    """Revoke on Google's own account page; the security event is lost."""
    context.system.google.revoke_account(f"{account}@example.com")
    return Report("done", ended_at_google=frozenset({account}))


_EVENTS: Mapping[str, tuple[str, Mapping[str, Any], Transform, Transform]] = {
    "tokens-revoked": (
        "tokens-revoked", {},
        # For an event that may be about an earlier consent, the broker asks Google instead.
        lambda state: (
            *only(ACTIVE, DEAD, ACTIVE)(state), *only(HELD_BACK, DEAD)(state)
        ) if state.status in (ACTIVE, HELD_BACK) else [state],
        perhaps(becomes(ENDED)),
    ),
    "hijacking": (
        "account-disabled", {"reason": "hijacking"},
        becomes(DEAD, unless=[NEVER, REVOKED]), becomes(ENDED),
    ),
    "disabled": (
        "account-disabled", {"reason": "bulk-account"},
        only(ACTIVE, HELD_BACK), becomes(ENDED),
    ),
    "token-revoked": (
        "token-revoked", {},
        # It names one token; the account may have several grants.
        lambda state: (
            *only(ACTIVE, DEAD, ACTIVE)(state), *only(HELD_BACK, DEAD, HELD_BACK)(state)
        ),
        perhaps(becomes(ENDED)),
    ),
    "enabled": ("account-enabled", {}, only(HELD_BACK, ACTIVE), lambda state: [state]),
    "sessions-revoked": ("sessions-revoked", {}, lambda state: [state], becomes(ENDED)),
    "credential-change": (
        "account-credential-change-required", {}, lambda state: [state], becomes(ENDED)
    ),
}  # fmt: skip
"""By the name in a history: the event, its payload, and its effects on a grant and on a pending
consent."""

ENDING_EVENTS = frozenset({"tokens-revoked", "token-revoked", "hijacking"})
"""When Google sends these, it has revoked the account's authorization."""

EVENTS = tuple(_EVENTS)


def event(context: Context, *, kind: str, account: str, replica: int, times: int = 1) -> Report:
    """Send a security event as Google does."""
    name, payload, to_grant, to_consent = _EVENTS[kind]
    system = context.system
    ended = frozenset({account}) if kind in ENDING_EVENTS else frozenset()
    about: dict[str, Any] = {"account": f"{account}@example.com"}
    if kind == "token-revoked":
        tokens = list(system.google.state.refresh_tokens.values())
        mine = [token.value for token in tokens if token.sub == system.sub(account)]
        if not mine:
            return Report("no token")
        about = {"refresh_token": mine[-1]}
    if ended:
        system.google.revoke_account(f"{account}@example.com")
    order = system.google.security_event(name, payload=dict(payload), **about)
    url = f"{system.replicas[replica].process.public_url}/auth/google/risc"
    answers = [_send(system, url, order) for _ in range(times)]
    effects: dict[Key, Transform] = {("grant", user, account): to_grant for user in context.users}
    effects |= {
        ("consent", ref): to_consent
        for ref, consent in context.pending.items()
        if consent.account == account
    }
    if 202 not in answers:
        effects = {key: perhaps(transform) for key, transform in effects.items()}
    outcome = "/".join(str(answer) for answer in answers)
    return Report(outcome, effects, ended_at_google=ended)


Operation = Callable[..., Report]

OPERATIONS: Mapping[str, Operation] = {
    "connect": connect,
    "confirm": confirm,
    "revoke": revoke,
    "token": token,
    "batch": batch,
    "rotate": rotate,
    "user_revokes_at_google": user_revokes_at_google,
    "event": event,
}


def describe(seen: Seen) -> str:
    if seen.status == 200:
        return "200"
    return f"{seen.status} {seen.body.get('code', '')}".strip()


def callers_scopes(caller: str) -> frozenset[str]:
    return frozenset(SCOPES[scope] for scope in CALLERS[caller])


def _ask(system: System, method: str, url: str, caller: str, **more: Any) -> httpx2.Response | None:
    """Return the response; None without one. A 500 is never accepted."""
    try:
        answer = system.http.request(method, url, headers=system.headers(caller), **more)
    except httpx2.HTTPError:
        return None
    assert answer.status_code != 500, f"{method} {url}: {answer.text}"
    return answer


def _send(system: System, url: str, order: str) -> int | None:
    try:
        answer = system.http.post(url, content=order, headers={"Content-Type": MEDIA_TYPE})
    except httpx2.HTTPError:
        return None
    return answer.status_code


def _code(answer: httpx2.Response | None) -> str:
    if answer is None:
        return "no answer"
    code = answer.json().get("code", "") if answer.content else ""
    return f"{answer.status_code} {code}".strip()
