"""Google's security event tokens (Cross-Account Protection, RISC): verification and contents.

Verifies all of RFC 8417 but `exp`: Google's page on Cross-Account Protection says not to check it,
because events are about the past. A token acts once by its `jti`; after the `jti` is forgotten,
its age keeps it from acting again. The form of an event is judged here, its effect is not: an event
that cannot be understood is returned as such.
"""

import base64
import binascii
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx2

from broker.clock import Clock
from broker.google.errors import GoogleUnavailable, SecurityEventRefused
from broker.google.http import fetch_json, log_document_changes
from broker.google.signed_tokens import SignedTokens
from broker.issuers.unverified_jwt import is_unambiguous, numeric_date
from broker.outbound.cached_fetch import CachedFetch
from broker.settings import is_secure_url
from broker.telemetry.metrics import Metrics

LONGEST_EVENT_TOKEN = 16 * 1024
OLDEST_EVENT_TOKEN = timedelta(days=30)
"""An older token, by its `iat`, is refused."""
CLOCK_AHEAD_AT_MOST = timedelta(minutes=10)
"""Allowed if Google's clock is ahead of the broker's."""
PREFIX_LENGTH = 16
"""Characters of a refresh token by which `prefix` names it."""

_OLDEST_EVENT = timedelta(days=3650)
"""Age limit of an event itself, which may have been detected late."""
_TYPES = frozenset({"jwt", "secevent+jwt"})
"""RFC 8417 §2.3 recommends the latter. A token that Google signs for another purpose is no event
(RFC 8725 §3.11), but a token may omit its type.
"""
_MOST_EVENTS = 16
_MOST_AUDIENCES = 100
_LONGEST_NAME = 255
_LONGEST_STATE = 255
_DIGEST_BYTES = 64
_PATH = "/.well-known/risc-configuration"
_GOOGLES_NAMES = frozenset(
    {"https://accounts.google.com", "https://accounts.google.com/", "accounts.google.com"}
)
_RISC = "https://schemas.openid.net/secevent/risc/event-type/"
_OAUTH = "https://schemas.openid.net/secevent/oauth/event-type/"


class EventKind(StrEnum):
    """Google's own names; every other event is `UNKNOWN`."""

    TOKENS_REVOKED = "tokens-revoked"
    TOKEN_REVOKED = "token-revoked"  # noqa: S105  (a name)
    SESSIONS_REVOKED = "sessions-revoked"
    ACCOUNT_DISABLED = "account-disabled"
    ACCOUNT_ENABLED = "account-enabled"
    CREDENTIAL_CHANGE_REQUIRED = "account-credential-change-required"
    VERIFICATION = "verification"
    UNKNOWN = "unknown"


EVENT_TYPES: Mapping[str, EventKind] = {
    _OAUTH + EventKind.TOKENS_REVOKED: EventKind.TOKENS_REVOKED,
    _OAUTH + EventKind.TOKEN_REVOKED: EventKind.TOKEN_REVOKED,
    _RISC + EventKind.SESSIONS_REVOKED: EventKind.SESSIONS_REVOKED,
    _RISC + EventKind.ACCOUNT_DISABLED: EventKind.ACCOUNT_DISABLED,
    _RISC + EventKind.ACCOUNT_ENABLED: EventKind.ACCOUNT_ENABLED,
    _RISC + EventKind.CREDENTIAL_CHANGE_REQUIRED: EventKind.CREDENTIAL_CHANGE_REQUIRED,
    _RISC + EventKind.VERIFICATION: EventKind.VERIFICATION,
}
"""All types that Google documents; the stream requests all of them."""


@dataclass(frozen=True, slots=True)
class AccountSubject:
    """A Google account."""

    sub: str


@dataclass(frozen=True, slots=True)
class TokenPrefix:
    """A refresh token, by its first 16 characters."""

    prefix: str

    def __repr__(self) -> str:
        return "TokenPrefix(...)"


@dataclass(frozen=True, slots=True)
class TokenDigest:
    """A refresh token, by SHA-512 of its SHA-512."""

    digest: bytes

    def __repr__(self) -> str:
        return "TokenDigest(...)"


Subject = AccountSubject | TokenPrefix | TokenDigest


@dataclass(frozen=True, slots=True)
class SecurityEvent:
    """One event of a token."""

    kind: EventKind
    subject: Subject | None
    """None if it is absent or cannot be understood."""
    reason: str | None = None
    """The reason for which an account was disabled."""
    state: str | None = None
    """The text that the operator chose for a verification."""


@dataclass(frozen=True, slots=True)
class SecurityEventToken:
    """A token (RFC 8417) that Google signed for the broker."""

    jti: str
    audience: tuple[str, ...]
    issued_at: datetime
    happened_at: datetime
    """The time of the events: `toe` if present, else the time of issue."""
    is_dated: bool
    """True if `toe` is present; otherwise the events may have happened some time before."""
    events: tuple[SecurityEvent, ...]


@dataclass(frozen=True, slots=True)
class RiscConfiguration:
    """The issuer of security events, and the URL of its keys."""

    issuer: str
    jwks: str

    @property
    def issuers(self) -> frozenset[str]:
        """The accepted spellings of the issuer: Google's own has a slash at its end or not."""
        bare = self.issuer.removesuffix("/")
        names = {bare, bare + "/"}
        return frozenset(names | _GOOGLES_NAMES if names & _GOOGLES_NAMES else names)


class SecurityEventVerifier:
    """Accepts what Google signed for one of the broker's OAuth clients, and nothing else."""

    def __init__(
        self,
        discovery_url: str,
        http: httpx2.AsyncClient,
        clock: Clock,
        metrics: Metrics,
        *,
        is_ours: Callable[[Sequence[str]], Awaitable[bool]],
    ) -> None:
        """`is_ours` returns True if one of these client ids is, or was, the broker's."""
        self._url = risc_configuration_url(discovery_url)
        self._http = http
        self._clock = clock
        self._metrics = metrics
        self._is_ours = is_ours
        self._configuration = CachedFetch(
            self._fetch, clock, on_failure=log_document_changes("risc_configuration")
        )
        self._tokens = SignedTokens(self._jwks_url, http, clock, metrics)

    async def verify(self, unverified_token: str) -> SecurityEventToken:
        """Return the token's contents.

        Raises `SecurityEventRefused`; `GoogleUnavailable` if the keys are unavailable.
        """
        claims = await self._tokens.verify(
            unverified_token,
            at_most=LONGEST_EVENT_TOKEN,
            refused=SecurityEventRefused,
            needs_key_id=True,
            types=_TYPES,
        )
        issuers = (await self._configuration.get()).issuers
        issuer = claims.get("iss")
        if not isinstance(issuer, str) or issuer not in issuers:
            raise SecurityEventRefused("iss")
        audience = _audience(claims.get("aud"))
        if not audience or not await self._is_ours(audience):
            raise SecurityEventRefused("aud")
        return self._read(claims, audience, issuers)

    def _read(
        self, claims: dict[str, Any], audience: tuple[str, ...], issuers: frozenset[str]
    ) -> SecurityEventToken:
        jti, events = claims.get("jti"), claims.get("events")
        if not isinstance(jti, str) or not _is_name(jti):
            raise SecurityEventRefused("jti")
        issued_at = self._moment(claims.get("iat"))
        if issued_at is None:
            raise SecurityEventRefused("iat")
        if not isinstance(events, dict) or not 1 <= len(events) <= _MOST_EVENTS:
            raise SecurityEventRefused("events")
        if not all(isinstance(payload, dict) for payload in events.values()):
            raise SecurityEventRefused("events")
        happened_at = self._moment(claims.get("toe"), oldest=_OLDEST_EVENT)
        is_dated = happened_at is not None and happened_at <= issued_at
        return SecurityEventToken(
            jti=jti,
            audience=audience,
            issued_at=issued_at,
            happened_at=happened_at if happened_at is not None and is_dated else issued_at,
            is_dated=is_dated,
            events=tuple(
                read_event(uri, payload, issuers=issuers, sub_id=claims.get("sub_id"))
                for uri, payload in events.items()
            ),
        )

    def _moment(self, claim: object, *, oldest: timedelta = OLDEST_EVENT_TOKEN) -> datetime | None:
        """Return a NumericDate; None if it is older than `oldest`, ahead, or no number."""
        seconds, now = numeric_date(claim), self._clock.epoch()
        if seconds is None:
            return None
        if not -oldest.total_seconds() <= seconds - now <= CLOCK_AHEAD_AT_MOST.total_seconds():
            return None
        return datetime.fromtimestamp(seconds, UTC)

    async def _jwks_url(self) -> str:
        return (await self._configuration.get()).jwks

    async def _fetch(self) -> RiscConfiguration:
        document = await fetch_json(self._http, self._url, "risc_configuration", self._metrics)
        return read_risc_configuration(document)


def risc_configuration_url(discovery_url: str) -> str:
    """Return the URL of the RISC configuration: same origin as the discovery document."""
    return urlunsplit(urlsplit(discovery_url)._replace(path=_PATH, query="", fragment=""))


def read_risc_configuration(document: dict[str, Any]) -> RiscConfiguration:
    """Check a RISC configuration. Raises `GoogleUnavailable("bad_discovery")`."""
    issuer, jwks = document.get("issuer"), document.get("jwks_uri")
    if not isinstance(issuer, str) or not issuer.strip("/"):
        raise GoogleUnavailable("bad_discovery")
    if not isinstance(jwks, str) or not is_secure_url(jwks):
        raise GoogleUnavailable("bad_discovery")
    return RiscConfiguration(issuer, jwks)


def read_event(
    type_uri: str, payload: Mapping[str, Any], *, issuers: Collection[str], sub_id: object = None
) -> SecurityEvent:
    """Return one member of `events`; `sub_id` is the subject of a payload that has none."""
    kind = EVENT_TYPES.get(type_uri, EventKind.UNKNOWN)
    reason, state = payload.get("reason"), payload.get("state")
    return SecurityEvent(
        kind=kind,
        subject=_read_subject(payload.get("subject", sub_id), issuers),
        reason=reason if isinstance(reason, str) else None,
        state=state[:_LONGEST_STATE] if isinstance(state, str) and state.isprintable() else None,
    )


def _read_subject(subject: object, issuers: Collection[str]) -> Subject | None:
    """Return the subject. An email alone identifies no account: it may have changed hands."""
    if not isinstance(subject, dict):
        return None
    # The drafts that Google follows have `subject_type` and hyphens, RFC 9493 has `format`.
    form = subject.get("subject_type", subject.get("format"))
    if not isinstance(form, str | None):
        return None
    match (form or "iss_sub").replace("-", "_"):
        case "iss_sub" | "id_token_claims":
            return _read_account(subject, issuers)
        case "oauth_token":
            return _read_token(subject)
        case _:
            return None


def _read_account(subject: Mapping[str, Any], issuers: Collection[str]) -> AccountSubject | None:
    sub, issuer = subject.get("sub"), subject.get("iss")
    if not isinstance(issuer, str) or issuer not in issuers:
        return None
    return AccountSubject(sub) if isinstance(sub, str) and _is_name(sub) else None


def _read_token(subject: Mapping[str, Any]) -> TokenPrefix | TokenDigest | None:
    token = subject.get("token")
    if subject.get("token_type") != "refresh_token" or not isinstance(token, str):
        return None
    match subject.get("token_identifier_alg"):
        case "prefix" if len(token) == PREFIX_LENGTH and is_unambiguous(token):
            return TokenPrefix(token)
        case "hash_base64_sha512_sha512":
            digest = _decode(token)
            return TokenDigest(digest) if digest is not None else None
        case _:
            return None


def _decode(text: str) -> bytes | None:
    """Decode base64 in either alphabet, padded or not."""
    plain = text.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        digest = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
    return digest if len(digest) == _DIGEST_BYTES else None


def _audience(aud: object) -> tuple[str, ...]:
    """Return the client ids of `aud`, which may be one or a list (RFC 7519 §4.1.3)."""
    names = aud if isinstance(aud, list) else [aud]
    return tuple(
        name for name in names[:_MOST_AUDIENCES] if isinstance(name, str) and _is_name(name)
    )


def _is_name(text: str) -> bool:
    return 1 <= len(text) <= _LONGEST_NAME and is_unambiguous(text)
