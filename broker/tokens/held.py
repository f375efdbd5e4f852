"""Tokens held in memory, ready to be sent, within a bound; forgotten the moment a user changes.

Nothing here decides who may have a token: an answer is kept for the very caller object whose policy
admitted it, and a changed policy has a new one.
"""

import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from broker.callers.model import Caller
from broker.clock import rfc3339
from broker.grants.model import AccessToken, Grant


class HeldToken:
    """A token with its answer's bytes made ready, all but the seconds that it still lives."""

    __slots__ = (
        "account_sub",
        "alive",
        "asked_ttl",
        "expires_at",
        "grant_id",
        "grant_version",
        "head",
        "obtained_at",
        "scopes",
        "tail",
        "used",
        "used_again",
    )

    def __init__(self, grant: Grant, token: AccessToken) -> None:
        self.grant_id = grant.id
        self.grant_version = grant.version
        self.account_sub = grant.google_sub
        self.scopes = token.scopes
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
            "scope": " ".join(token.scopes),
            "account": {"sub": grant.google_sub, "email": grant.email},
        }
        access_token = json.dumps(token.value.reveal())
        self.head = f'{{"access_token":{access_token},"token_type":"Bearer","expires_in":'.encode()
        self.tail = ("," + json.dumps(facts, separators=(",", ":"))[1:]).encode()

    def body(self, seconds_left: int) -> bytes:
        """The JSON answer of the contract."""
        return b"%b%d%b" % (self.head, seconds_left, self.tail)

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


_Question = tuple[str, tuple[str, ...] | None, str | None]


def _question(caller: Caller, request: TokenRequest) -> _Question:
    return (caller.name, request.scopes, request.account)


@dataclass(slots=True)
class _HeldUser:
    """Whatever leaves here is no longer alive: what nobody holds, no revocation can find."""

    tokens: dict[tuple[UUID, str], HeldToken] = field(default_factory=dict)
    """By grant and scope set."""
    answers: dict[_Question, tuple[Caller, HeldToken]] = field(default_factory=dict)
    """Which of them answers whose question."""

    def put(self, place: tuple[UUID, str], token: HeldToken) -> None:
        """Hold a token in place of the one before it, also for the questions which that answers."""
        before = self.tokens.get(place)
        self.tokens[place] = token
        if before is None or before is token:
            return
        before.alive = False
        token.asked_ttl = max(token.asked_ttl, before.asked_ttl)
        token.used = before.used
        for question, (caller, answer) in self.answers.items():
            if answer is before:
                self.answers[question] = (caller, token)

    def end(self) -> None:
        """Hold nothing any more."""
        for token in self.tokens.values():
            token.alive = False
        for _caller, answer in self.answers.values():
            answer.alive = False
        self.tokens.clear()
        self.answers.clear()


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
        held_for, token = user.answers.get(_question(caller, request), (None, None))
        return token if held_for is caller else None

    def token(self, user_id: str, grant: Grant, held_under: str) -> HeldToken | None:
        """The token held for a grant as it is now and a scope set, expired or not."""
        user = self._users.get(user_id)
        token = user.tokens.get((grant.id, held_under)) if user else None
        return token if token is not None and token.grant_version == grant.version else None

    def keep(self, user_id: str, held_under: str, token: HeldToken, watch: Watch) -> None:
        """Hold a token, unless the user's grants changed while it was being fetched."""
        if watch.changed:
            return
        user = self._users.setdefault(user_id, _HeldUser())
        if len(user.tokens) >= self._per_user:
            user.end()
        user.put((token.grant_id, held_under), token)
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
            user.answers.clear()
        user.answers[_question(caller, request)] = (caller, token)
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
            held_grant == grant_id and token.grant_version >= version
            for (held_grant, _), token in user.tokens.items()
        )
        if not known:
            self.forget(user_id)


def _nobody(_user_id: str, _held_under: str, _token: HeldToken) -> None:
    """Nobody wants to know."""
