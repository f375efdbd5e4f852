"""What Google's security events say (Cross-Account Protection, RISC), as values.

Reads payloads whose signature is good already. Form is judged here, effects are not: what can't be
understood is told as such.
"""

import base64
import binascii
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from broker.google.signatures import is_plain

PREFIX_LENGTH = 16
"""Characters of a refresh token by which `prefix` names it."""

_RISC = "https://schemas.openid.net/secevent/risc/event-type/"
_OAUTH = "https://schemas.openid.net/secevent/oauth/event-type/"
_DIGEST_BYTES = 64
_LONGEST_SUB = 255
_LONGEST_STATE = 255


class EventKind(StrEnum):
    """Google's own names; those without meaning here are all `UNKNOWN`."""

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
"""All that Google documents, and all that a stream is asked for."""


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
    """Nothing where there is none, or none that can be understood."""
    reason: str | None = None
    """Why an account was disabled."""
    state: str | None = None
    """What the operator asked a verification to carry."""


@dataclass(frozen=True, slots=True)
class SecurityEventToken:
    """A token (RFC 8417) that Google signed for us."""

    jti: str
    audience: tuple[str, ...]
    issued_at: datetime
    happened_at: datetime
    """When what it tells took place: `toe` if it says so, else when it was issued."""
    is_dated: bool
    """Whether it says so; else it may have taken place some time before."""
    events: tuple[SecurityEvent, ...]


def read_event(
    type_uri: str, payload: Mapping[str, Any], *, issuers: Collection[str], sub_id: object = None
) -> SecurityEvent:
    """One member of `events`; `sub_id` is the token's own subject, for a payload without one."""
    kind = EVENT_TYPES.get(type_uri, EventKind.UNKNOWN)
    reason, state = payload.get("reason"), payload.get("state")
    return SecurityEvent(
        kind=kind,
        subject=_read_subject(payload.get("subject", sub_id), issuers),
        reason=reason if isinstance(reason, str) else None,
        state=state[:_LONGEST_STATE] if isinstance(state, str) and state.isprintable() else None,
    )


def _read_subject(subject: object, issuers: Collection[str]) -> Subject | None:
    """An email alone names nobody: it may have changed hands."""
    if not isinstance(subject, dict):
        return None
    # The drafts that Google follows say `subject_type` and hyphens, RFC 9493 says `format`.
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
    if not isinstance(sub, str) or not 1 <= len(sub) <= _LONGEST_SUB or not is_plain(sub):
        return None
    return AccountSubject(sub)


def _read_token(subject: Mapping[str, Any]) -> TokenPrefix | TokenDigest | None:
    token = subject.get("token")
    if subject.get("token_type") != "refresh_token" or not isinstance(token, str):
        return None
    match subject.get("token_identifier_alg"):
        case "prefix" if len(token) == PREFIX_LENGTH and is_plain(token):
            return TokenPrefix(token)
        case "hash_base64_sha512_sha512":
            digest = _decode(token)
            return TokenDigest(digest) if digest is not None else None
        case _:
            return None


def _decode(text: str) -> bytes | None:
    """Base64 in either alphabet, padded or not."""
    plain = text.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        digest = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
    return digest if len(digest) == _DIGEST_BYTES else None
