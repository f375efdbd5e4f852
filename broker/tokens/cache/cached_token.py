"""A cached token, and the requests that it answers.

The cache has a hundred thousand of them, so nothing is stored that can be computed in time, and
equal parts are one object.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from broker.audit.records import SubjectFields
from broker.callers.model import Caller
from broker.clock import rfc3339
from broker.database.copy_text import array_field, text_field
from broker.grants.model import AccessToken, Grant

_ANSWER = (
    b'{"access_token":%b,"token_type":"Bearer","expires_in":%d,'
    b'"expires_at":"%b","scope":%b,"account":%b}'
)

_ACCOUNT = b'{"sub":%b,"email":%b}'

_encode = json.JSONEncoder().encode


def _json_string(text: str) -> bytes:
    """Return a JSON string in ASCII. For a whole object the module would build an encoder."""
    return _encode(text).encode()


class _Scopes(NamedTuple):
    """A set of scopes in the forms that are needed; shared by the tokens that have it."""

    names: tuple[str, ...]
    json: bytes
    audit: bytes


@lru_cache(maxsize=1024)
def _scopes_of(names: tuple[str, ...]) -> _Scopes:
    return _Scopes(names, _json_string(" ".join(names)), array_field(names))


@lru_cache(maxsize=1024)
def interned(scopes: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Return one and the same tuple for all equal ones."""
    return scopes


class CachedToken:
    """An access token with the bytes of its HTTP answer prepared, except `expires_in`."""

    __slots__ = (
        "_access_token",
        "_account",
        "_expiry",
        "_scopes",
        "alive",
        "answers",
        "due",
        "expires_at",
        "grant_bytes",
        "grant_version",
        "longest_min_ttl",
        "next",
        "obtained_at",
        "referenced",
        "scope_set",
        "used",
        "used_again",
        "user_id",
    )

    def __init__(self, grant: Grant, token: AccessToken) -> None:
        self.user_id = grant.user_id
        self.grant_bytes = grant.id.bytes
        self.grant_version = grant.version
        self.scope_set = ""
        """The scope set under which the cache has it; empty while it is in no cache."""
        self.obtained_at = token.obtained_at.timestamp()
        self.expires_at = token.expires_at.timestamp()
        """Seconds since 1970, as `obtained_at`."""
        self.alive = True
        """False as soon as the user's grants change or another token replaces this one."""
        self.used = False
        self.used_again = False
        """True if it was handed out more than once, so callers keep requesting it."""
        self.referenced = False
        """CLOCK's reference bit: `used_again` since the eviction last passed."""
        self.longest_min_ttl = 0
        """Seconds: the longest `min_ttl` of the requests that it answered."""
        self.due: float | None = None
        """Its key in the schedule of proactive refreshes."""
        self.next: CachedToken | None = None
        """The next token of the same user."""
        self.answers: CachedAnswer | None = None
        """The first request that it answers; the others are chained to it."""
        self._access_token = _json_string(token.value.reveal())
        self._expiry = rfc3339(token.expires_at).encode()
        self._scopes = _scopes_of(token.scopes)
        self._account = _ACCOUNT % (_json_string(grant.google_sub), _json_string(grant.email))

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes that the token has, as Google names them."""
        return self._scopes.names

    @property
    def account(self) -> Mapping[str, str]:
        """The Google account: `sub` and `email`."""
        account: Mapping[str, str] = json.loads(self._account)
        return account

    def body(self, seconds_left: int) -> bytes:
        """Return the JSON answer of the contract."""
        return _ANSWER % (
            self._access_token,
            seconds_left,
            self._expiry,
            self._scopes.json,
            self._account,
        )

    def subject_fields(self) -> SubjectFields:
        """Return user, account and scopes, encoded for the audit trail."""
        # Nearly every `sub` is digits, which need no JSON parser.
        sub = self._account.split(b'"', 4)[3]
        if not sub.isdigit():
            sub = text_field(self.account["sub"])
        return b"\t".join((text_field(self.user_id), sub, self._scopes.audit))

    def __repr__(self) -> str:
        return f"CachedToken(grant={self.grant_bytes.hex()!r})"


class CallerAnswers:
    """The requests of one caller under one policy that were answered, by their HTTP target."""

    __slots__ = ("by_target", "caller")

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.by_target: dict[bytes, CachedAnswer] = {}


class CachedAnswer:
    """A request that a cached token answers."""

    __slots__ = ("account", "asked_by", "min_ttl", "next", "scopes", "target", "token")

    def __init__(
        self,
        asked_by: CallerAnswers,
        token: CachedToken,
        scopes: tuple[str, ...] | None,
        account: str | None,
    ) -> None:
        self.asked_by = asked_by
        self.token = token
        self.scopes = scopes
        self.account = account
        self.target: bytes | None = None
        """The request line's target as sent; None if the request was no GET of one token."""
        self.min_ttl: float = 0
        """Seconds that the token must still live to answer the target again."""
        self.next: CachedAnswer | None = None
        """The next request that the same token answers."""
