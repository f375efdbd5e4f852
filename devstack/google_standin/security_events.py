"""Security event tokens as Google signs and sends them, and as an attacker would.

Events are sent automatically only if a stream is registered.
"""

import base64
import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx2

from devstack.google_standin.context import StandinContext
from devstack.google_standin.keys import hs256, rs256, unpublished_key, unsigned

RISC = "https://schemas.openid.net/secevent/risc/event-type/"
OAUTH = "https://schemas.openid.net/secevent/oauth/event-type/"
MEDIA_TYPE = "application/secevent+jwt"
DEFECTS = frozenset(
    {"alg_none", "hs256", "unknown_kid", "missing_kid", "bad_signature", "aud", "iss", "not_a_jwt"}
)

_TRIES_AFTER = (0.0, 0.5, 2.0)
"""Seconds before each try; Google's own retries are limited, too."""


@dataclass
class EventOrder:
    """The description of a token; defaults are as Google does it."""

    event: str
    """Google's short name such as `tokens-revoked`, or a full URI."""
    account: str | None = None
    """A `sub` or an email."""
    refresh_token: str | None = None
    """For `token-revoked`: the token that was revoked."""
    algorithm: str = "hash_base64_sha512_sha512"
    """How the token is identified: this, or `prefix`."""
    payload: dict[str, Any] = field(default_factory=dict)
    """More members, such as `reason`; a `subject` replaces the default one."""
    claims: dict[str, Any] = field(default_factory=dict)
    """Other claims of the token; None removes one."""
    defect: str | None = None
    """One of `DEFECTS`."""


def issuer(context: StandinContext) -> str:
    """Return the issuer; Google's has a slash that its discovery document lacks."""
    return context.issuer + "/"


def mint(context: StandinContext, order: EventOrder) -> str:
    """Sign a token. Raises `KeyError` for an unknown account, `ValueError` for a defect."""
    if order.defect is not None and order.defect not in DEFECTS:
        raise ValueError(f"no such defect of a security event token: {order.defect}")
    payload = {"subject": _subject(context, order)} | order.payload
    if payload["subject"] is None:
        del payload["subject"]
    clients = sorted(context.state.clients)
    claims: dict[str, Any] = {
        "iss": issuer(context),
        "aud": clients[0] if len(clients) == 1 else clients,
        "iat": int(context.clock.epoch()),
        "jti": uuid4().hex,
        "events": {event_uri(order.event): payload},
    }
    if order.defect == "aud":
        claims["aud"] = "999999-someone-else.apps.googleusercontent.com"
    if order.defect == "iss":
        claims["iss"] = "https://accounts.attacker.example/"
    claims = {name: value for name, value in (claims | order.claims).items() if value is not None}
    return _sign(context, claims, order.defect)


def event_uri(event: str) -> str:
    """Return the full URI of an event."""
    if ":" in event:
        return event
    return (OAUTH if event in ("tokens-revoked", "token-revoked") else RISC) + event


def _subject(context: StandinContext, order: EventOrder) -> dict[str, str] | None:
    if order.refresh_token is not None:
        return {
            "subject_type": "oauth_token",
            "token_type": "refresh_token",
            "token_identifier_alg": order.algorithm,
            "token": _identifier(order.refresh_token, order.algorithm),
        }
    if order.account is None:
        return None
    sub = context.state.account(order.account).sub
    return {"subject_type": "iss-sub", "iss": issuer(context), "sub": sub}


def _identifier(token: str, algorithm: str) -> str:
    if algorithm == "prefix":
        return token[:16]
    digest = hashlib.sha512(hashlib.sha512(token.encode()).digest()).digest()
    return base64.b64encode(digest).decode()


def _sign(context: StandinContext, claims: Mapping[str, Any], defect: str | None) -> str:
    key = context.state.keys.current
    match defect:
        case "alg_none":
            return unsigned(claims)
        case "hs256":
            return hs256(key.public_pem(), claims, kid=key.kid)
        case "unknown_kid":
            return rs256(unpublished_key(), claims)
        case "missing_kid":
            return rs256(key, claims, kid="")
        case "bad_signature":
            return rs256(unpublished_key(), claims, kid=key.kid)
        case "not_a_jwt":
            return "not.a-jwt"
        case _:
            return rs256(key, claims)


def deliver(url: str, token: str) -> int | None:
    """Post a token; return the receiver's status, or None without an answer."""
    try:
        headers = {"Content-Type": MEDIA_TYPE, "Accept": "application/json"}
        return httpx2.post(url, content=token, headers=headers, timeout=10).status_code
    except httpx2.HTTPError:
        return None


def announce(context: StandinContext, order: EventOrder) -> None:
    """Send an event in the background, if the stream is registered, enabled and requests it."""
    stream = context.state.event_stream
    if not stream or context.state.event_stream_status != "enabled":
        return
    if event_uri(order.event) not in stream["events_requested"]:
        return
    deliver_soon(context, stream["delivery"]["url"], mint(context, order))


def deliver_soon(context: StandinContext, url: str, token: str) -> None:
    """Post a token from a thread: the receiver may fetch the keys from this process."""

    def try_several_times() -> None:
        for pause in _TRIES_AFTER:
            if stopping.wait(pause):
                return
            status = deliver(url, token)
            context.delivered.append({"url": url, "token": token, "status": status})
            if status is not None and status < 500:
                return

    stopping = context.stopping
    threading.Thread(target=try_several_times, name="security-event", daemon=True).start()
