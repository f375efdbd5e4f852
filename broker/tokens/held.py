"""Tokens held in memory, ready to be sent, within a bound; forgotten the moment a user changes.

Nothing here decides who may have a token: an answer is kept for the very caller object whose policy
admitted it, and a changed policy has a new one.
"""

import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from sys import intern
from typing import NamedTuple
from uuid import UUID

from broker.callers.model import Caller
from broker.clock import rfc3339
from broker.grants.model import AccessToken, Grant

LAST_SECOND = 1.0
"""A token with less than this to live counts as expired: it would die on its way."""

_ANSWER = b'{"access_token":%b,"token_type":"Bearer","expires_in":%d,%b'

_compact_json = json.JSONEncoder(separators=(",", ":")).encode


class HeldToken:
    """A token with its answer's bytes made ready, all but the seconds that it still lives."""

    __slots__ = (
        "_access_token",
        "_facts",
        "_scopes",
        "account_sub",
        "alive",
        "asked_ttl",
        "expires_at",
        "grant_id",
        "grant_version",
        "held_under",
        "obtained_at",
        "used",
        "used_again",
    )

    def __init__(self, grant: Grant, token: AccessToken) -> None:
        self.grant_id = grant.id
        self.grant_version = grant.version
        self.account_sub = grant.google_sub
        # Everybody's are the same few: held once.
        self._scopes = intern(" ".join(token.scopes))
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
        self.asked_ttl = 0
        """Seconds: the longest `min_ttl` that it was asked for with."""
        facts = {
            "expires_at": rfc3339(token.expires_at),
            "scope": self._scopes,
            "account": {"sub": grant.google_sub, "email": grant.email},
        }
        self._access_token = json.dumps(token.value.reveal()).encode()
        self._facts = _compact_json(facts)[1:].encode()

    @property
    def scopes(self) -> tuple[str, ...]:
        """What the token carries."""
        return tuple(self._scopes.split())

    def body(self, seconds_left: int) -> bytes:
        """The JSON answer of the contract."""
        return _ANSWER % (self._access_token, seconds_left, self._facts)

    def __repr__(self) -> str:
        return f"HeldToken(grant_id={self.grant_id!r})"


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """What a caller asks for, checked in form but not against any policy."""

    user_id: str
    scopes: tuple[str, ...] | None
    """Nothing means all that grant and caller share."""
    account: str | None
    """A Google `sub` or email; nothing means the only or the default grant."""
    min_ttl: int
    """Seconds that the token must still live."""


class _Answer(NamedTuple):
    """Whose question a token answers, and which."""

    caller: Caller
    scopes: tuple[str, ...] | None
    account: str | None
    token: HeldToken

    def is_to(self, request: TokenRequest) -> bool:
        return self.scopes == request.scopes and self.account == request.account


@dataclass(slots=True)
class _HeldUser:
    """Whatever leaves here is no longer alive: what nobody holds, no revocation can find.

    Tuples, not dictionaries: nearly every user has one token and one question, and there are a
    hundred thousand users.
    """

    tokens: tuple[HeldToken, ...] = ()
    answers: tuple[_Answer, ...] = ()

    def find(self, grant_id: UUID, held_under: str) -> HeldToken | None:
        for token in self.tokens:
            if token.held_under == held_under and token.grant_id == grant_id:
                return token
        return None

    def put(self, token: HeldToken) -> None:
        """Hold a token in place of the one before it, also for the questions which that answers."""
        before = self.find(token.grant_id, token.held_under)
        if before is token:
            return
        self.tokens = (*(each for each in self.tokens if each is not before), token)
        if before is None:
            return
        before.alive = False
        token.asked_ttl = max(token.asked_ttl, before.asked_ttl)
        token.used = before.used
        self.answers = tuple(
            each._replace(token=token) if each.token is before else each for each in self.answers
        )

    def answer(self, caller: Caller, request: TokenRequest, token: HeldToken) -> None:
        """From now on this token answers the question; also if the caller's policy was reloaded."""
        others = (
            each
            for each in self.answers
            if each.caller.name != caller.name or not each.is_to(request)
        )
        self.answers = (*others, _Answer(caller, request.scopes, request.account, token))

    def end(self) -> None:
        """Hold nothing any more."""
        for token in self.tokens:
            token.alive = False
        for answer in self.answers:
            answer.token.alive = False
        self.tokens = ()
        self.answers = ()


class Watch:
    """Tells whether a user's grants changed while somebody was looking at them."""

    __slots__ = ("changed",)

    def __init__(self) -> None:
        self.changed = False


class HeldTokens:
    """A bounded memory of tokens, by user; the users who came longest ago go first."""

    def __init__(
        self,
        *,
        users_at_most: int = 100_000,
        per_user: int = 64,
        on_held: Callable[[str, str, HeldToken], None] | None = None,
    ) -> None:
        """`on_held` is told the user id, the scope set and the token whenever one is held."""
        self.on_held = on_held or _nobody
        self._users_at_most = users_at_most
        self._per_user = per_user
        self._users: OrderedDict[str, _HeldUser] = OrderedDict()
        self._watches: dict[str, set[Watch]] = {}

    def __len__(self) -> int:
        return len(self._users)

    def answer(self, caller: Caller, request: TokenRequest) -> HeldToken | None:
        """The token that answered this caller's same question last, expired or not."""
        user = self._users.get(request.user_id)
        if user is None:
            return None
        self._users.move_to_end(request.user_id)
        for answer in user.answers:
            if answer.caller is caller and answer.is_to(request):
                return answer.token
        return None

    def token(self, user_id: str, grant: Grant, held_under: str) -> HeldToken | None:
        """The token held for a grant as it is now and a scope set, expired or not."""
        user = self._users.get(user_id)
        token = user.find(grant.id, held_under) if user else None
        return token if token is not None and token.grant_version == grant.version else None

    def keep(self, user_id: str, held_under: str, token: HeldToken, watch: Watch) -> None:
        """Hold a token, unless the user's grants changed while it was being fetched."""
        if watch.changed:
            return
        user = self._users.setdefault(user_id, _HeldUser())
        if len(user.tokens) >= self._per_user:
            user.end()
        token.held_under = intern(held_under)
        user.put(token)
        self._users.move_to_end(user_id)
        while len(self._users) > self._users_at_most:
            self._users.popitem(last=False)[1].end()
        self.on_held(user_id, held_under, token)

    def keep_answer(self, caller: Caller, request: TokenRequest, token: HeldToken) -> None:
        """Hold which token answers a question, for a token that is held."""
        user = self._users.get(request.user_id)
        if user is None:
            return
        if len(user.answers) >= self._per_user:
            user.answers = ()
        user.answer(caller, request, token)
        token.asked_ttl = max(token.asked_ttl, request.min_ttl)

    def watch(self, user_id: str) -> Watch:
        """Begin to look at a user's grants; end it with `unwatch`."""
        watch = Watch()
        self._watches.setdefault(user_id, set()).add(watch)
        return watch

    def unwatch(self, user_id: str, watch: Watch) -> None:
        """Stop looking."""
        watches = self._watches[user_id]
        watches.discard(watch)
        if not watches:
            del self._watches[user_id]

    def forget(self, user_id: str) -> None:
        """The user's grants changed: from now on nothing that was held is handed out."""
        for watch in self._watches.get(user_id, ()):
            watch.changed = True
        user = self._users.pop(user_id, None)
        if user is not None:
            user.end()

    def changed(self, user_id: str, grant_id: UUID, version: int) -> None:
        """A grant has a new version: forget what is older; what was fetched since then stays."""
        user = self._users.get(user_id)
        known = user is not None and any(
            token.grant_id == grant_id and token.grant_version >= version for token in user.tokens
        )
        if not known:
            self.forget(user_id)


def _nobody(_user_id: str, _held_under: str, _token: HeldToken) -> None:
    """Nobody wants to know."""
