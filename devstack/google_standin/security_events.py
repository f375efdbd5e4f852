"""Security event tokens as Google signs and sends them, and as an attacker would.

Nothing is sent of its own accord unless a stream is registered.
"""

import base64
import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx2

from devstack.google_standin.keys import hs256, rs256, strangers_key, unsigned
from devstack.google_standin.world import World

RISC = "https://schemas.openid.net/secevent/risc/event-type/"
OAUTH = "https://schemas.openid.net/secevent/oauth/event-type/"
MEDIA_TYPE = "application/secevent+jwt"
DEFECTS = frozenset(
    {"alg_none", "hs256", "unknown_kid", "missing_kid", "bad_signature", "aud", "iss", "not_a_jwt"}
)

_TRIES_AFTER = (0.0, 0.5, 2.0)
"""Seconds; Google's own retries are limited, too."""


@dataclass
class EventOrder:
    """A token to be made; what is left out is as Google would have it."""

    event: str
    """Google's short name such as `tokens-revoked`, or a whole URI."""
    account: str | None = None
    """A `sub` or an email."""
    refresh_token: str | None = None
    """For `token-revoked`: the token that is named."""
    algorithm: str = "hash_base64_sha512_sha512"
    """How it is named: that, or `prefix`."""
    payload: dict[str, Any] = field(default_factory=dict)
    """Further members, such as `reason`; a `subject` takes the place of the usual one."""
    claims: dict[str, Any] = field(default_factory=dict)
    """Other claims of the token; None removes one."""
    defect: str | None = None
    """One of `DEFECTS`."""


def issuer(world: World) -> str:
    """Google's own has the slash that its discovery document lacks."""
    return world.issuer + "/"


def mint(world: World, order: EventOrder) -> str:
    """The signed token. Raises `KeyError` for an unknown account, `ValueError` for a defect."""
    if order.defect is not None and order.defect not in DEFECTS:
        raise ValueError(f"no such defect of a security event token: {order.defect}")
    payload = {"subject": _subject(world, order)} | order.payload
    if payload["subject"] is None:
        del payload["subject"]
    clients = sorted(world.state.clients)
    claims: dict[str, Any] = {
        "iss": issuer(world),
        "aud": clients[0] if len(clients) == 1 else clients,
        "iat": int(world.clock.epoch()),
        "jti": uuid4().hex,
        "events": {event_uri(order.event): payload},
    }
    if order.defect == "aud":
        claims["aud"] = "999999-someone-else.apps.googleusercontent.com"
    if order.defect == "iss":
        claims["iss"] = "https://accounts.attacker.example/"
    claims = {name: value for name, value in (claims | order.claims).items() if value is not None}
    return _sign(world, claims, order.defect)


def event_uri(event: str) -> str:
    """The whole name of an event."""
    if ":" in event:
        return event
    return (OAUTH if event in ("tokens-revoked", "token-revoked") else RISC) + event


def _subject(world: World, order: EventOrder) -> dict[str, str] | None:
    if order.refresh_token is not None:
        return {
            "subject_type": "oauth_token",
            "token_type": "refresh_token",
            "token_identifier_alg": order.algorithm,
            "token": _identifier(order.refresh_token, order.algorithm),
        }
    if order.account is None:
        return None
    sub = world.state.account(order.account).sub
    return {"subject_type": "iss-sub", "iss": issuer(world), "sub": sub}


def _identifier(token: str, algorithm: str) -> str:
    if algorithm == "prefix":
        return token[:16]
    digest = hashlib.sha512(hashlib.sha512(token.encode()).digest()).digest()
    return base64.b64encode(digest).decode()


def _sign(world: World, claims: Mapping[str, Any], defect: str | None) -> str:
    key = world.state.keys.current
    match defect:
        case "alg_none":
            return unsigned(claims)
        case "hs256":
            return hs256(key.public_pem(), claims, kid=key.kid)
        case "unknown_kid":
            return rs256(strangers_key(), claims)
        case "missing_kid":
            return rs256(key, claims, kid="")
        case "bad_signature":
            return rs256(strangers_key(), claims, kid=key.kid)
        case "not_a_jwt":
            return "not.a-jwt"
        case _:
            return rs256(key, claims)


def deliver(url: str, token: str) -> int | None:
    """Post a token; gives the receiver's status, or None if there was no answer."""
    try:
        headers = {"Content-Type": MEDIA_TYPE, "Accept": "application/json"}
        return httpx2.post(url, content=token, headers=headers, timeout=10).status_code
    except httpx2.HTTPError:
        return None


def announce(world: World, order: EventOrder) -> None:
    """Send an event through the stream, if it is registered, enabled and wants it; don't wait."""
    stream = world.state.event_stream
    if not stream or world.state.event_stream_status != "enabled":
        return
    if event_uri(order.event) not in stream["events_requested"]:
        return
    deliver_soon(world, stream["delivery"]["url"], mint(world, order))


def deliver_soon(world: World, url: str, token: str) -> None:
    """From a thread: the receiver may have to fetch the keys from this very process."""

    def try_some_times() -> None:
        for pause in _TRIES_AFTER:
            if stopping.wait(pause):
                return
            status = deliver(url, token)
            world.delivered.append({"url": url, "token": token, "status": status})
            if status is not None and status < 500:
                return

    stopping = world.stopping
    threading.Thread(target=try_some_times, name="security-event", daemon=True).start()
