"""A token that is held, and the questions that it answers; what keeps and forgets them is `held`.

Both are made for a hundred thousand of them: nothing is stored that can be made again in time, and
what many have in common is one object for all.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from broker.audit.trail import Told
from broker.callers.model import Caller
from broker.clock import rfc3339
from broker.database.copy_text import array_field, text_field
from broker.grants.model import AccessToken, Grant

_ANSWER = (
    b'{"access_token":%b,"token_type":"Bearer","expires_in":%d,'
    b'"expires_at":"%b","scope":%b,"account":%b}'
)

_compact_json = json.JSONEncoder(separators=(",", ":")).encode


class _Scopes(NamedTuple):
    """A set of scopes, as it is needed; many tokens carry the same."""

    names: tuple[str, ...]
    json: bytes
    audit: bytes


@lru_cache(maxsize=1024)
def _carried(names: tuple[str, ...]) -> _Scopes:
    return _Scopes(names, _compact_json(" ".join(names)).encode(), array_field(names))


@lru_cache(maxsize=1024)
def once(scopes: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The one tuple that is kept of all that are equal."""
    return scopes


class HeldToken:
    """A token with its answer's bytes made ready, all but the seconds that it still lives."""

    __slots__ = (
        "_access_token",
        "_account",
        "_expiry",
        "_scopes",
        "alive",
        "answers",
        "asked_ttl",
        "due",
        "expires_at",
        "grant_bytes",
        "grant_version",
        "held_under",
        "next",
        "obtained_at",
        "used",
        "used_again",
        "used_lately",
        "user_id",
    )

    def __init__(self, grant: Grant, token: AccessToken) -> None:
        self.user_id = grant.user_id
        self.grant_bytes = grant.id.bytes
        self.grant_version = grant.version
        self.held_under = ""
        """The scope set under which it is held, once it is."""
        self.obtained_at = token.obtained_at.timestamp()
        self.expires_at = token.expires_at.timestamp()
        """Seconds since 1970, as `obtained_at`."""
        self.alive = True
        """False from the moment that the user's grants change, or that another takes its place."""
        self.used = False
        self.used_again = False
        """Whether it was handed out more than once, so that somebody keeps asking for it."""
        self.used_lately = False
        """The same, since it was last looked at to make room."""
        self.asked_ttl = 0
        """Seconds: the longest `min_ttl` that it was asked for with."""
        self.due: float | None = None
        """Where it stands in the time table of refreshes ahead."""
        self.next: HeldToken | None = None
        """Another token of the same user."""
        self.answers: Answer | None = None
        """The first of the questions that it answers."""
        account = {"sub": grant.google_sub, "email": grant.email}
        self._access_token = json.dumps(token.value.reveal()).encode()
        self._expiry = rfc3339(token.expires_at).encode()
        self._scopes = _carried(token.scopes)
        self._account = _compact_json(account).encode()

    @property
    def scopes(self) -> tuple[str, ...]:
        """What the token carries."""
        return self._scopes.names

    @property
    def account(self) -> Mapping[str, str]:
        """Whose token it is at Google."""
        account: Mapping[str, str] = json.loads(self._account)
        return account

    def body(self, seconds_left: int) -> bytes:
        """The JSON answer of the contract."""
        return _ANSWER % (
            self._access_token,
            seconds_left,
            self._expiry,
            self._scopes.json,
            self._account,
        )

    def told(self) -> Told:
        """To whom it belongs and what it carries, for the audit trail."""
        # Most accounts are digits between two quotes; whatever else there is, JSON knows.
        sub = self._account.split(b'"', 4)[3]
        if not sub.isdigit():
            sub = text_field(self.account["sub"])
        return b"\t".join((text_field(self.user_id), sub, self._scopes.audit))

    def __repr__(self) -> str:
        return f"HeldToken(grant={self.grant_bytes.hex()!r})"


class Asker:
    """A caller as its policy stands, and its requests that were answered, letter by letter."""

    __slots__ = ("answers", "caller")

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.answers: dict[bytes, Answer] = {}


class Answer:
    """Whose question a token answers, and which."""

    __slots__ = ("account", "asker", "min_ttl", "next", "scopes", "target", "token")

    def __init__(
        self,
        asker: Asker,
        token: HeldToken,
        scopes: tuple[str, ...] | None,
        account: str | None,
    ) -> None:
        self.asker = asker
        self.token = token
        self.scopes = scopes
        self.account = account
        self.target: bytes | None = None
        """The request line's, as it stood on the wire; nothing if it came otherwise."""
        self.min_ttl: float = 0
        """Seconds that the token must still live to answer the target again."""
        self.next: Answer | None = None
        """Another question that the same token answers."""
