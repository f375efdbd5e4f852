"""Tokens held in memory, ready to be sent, within a bound; forgotten the moment a user changes.

Nothing here decides who may have a token: an answer is kept for the very caller object whose policy
admitted it, and a changed policy has a new one.

There are a hundred thousand of them, so each is a few small objects: what many have in common is
held once, and a user's tokens, like a token's answers, are chained instead of listed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from sys import intern
from typing import TypeVar
from uuid import UUID

from broker.callers.model import Caller
from broker.grants.model import Grant
from broker.tokens.cache.cached_token import Answer, Asker, HeldToken, once

LAST_SECOND = 1.0
"""A token with less than this to live counts as expired: it would die on its way."""

_SPARED_IN_A_ROW = 100
"""So many users who keep asking are passed over when room is made; then anybody has to go."""


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


class Watch:
    """Tells whether a user's grants changed while somebody was looking at them."""

    __slots__ = ("changed",)

    def __init__(self) -> None:
        self.changed = False


class HeldTokens:
    """A bounded memory of tokens; the users who came longest ago and did not come again go first.

    Whatever leaves it is no longer alive, and leaves everywhere: what nobody holds, no revocation
    can find, and no bound counts.
    """

    def __init__(
        self,
        *,
        tokens_at_most: int = 100_000,
        answers_at_most: int = 200_000,
        per_user: int = 64,
        on_held: Callable[[HeldToken], None] | None = None,
        on_gone: Callable[[HeldToken], None] | None = None,
        on_all_gone: Callable[[], None] | None = None,
    ) -> None:
        """`on_held` is told of each token that is held, `on_gone` when it no longer is;
        `on_all_gone` once for all, when none is.
        """
        self.on_held = on_held or _nobody
        self.on_gone = on_gone or _nobody
        self.on_all_gone = on_all_gone or _nothing
        self.is_suspended = False
        """While it is, nothing is held."""
        self._tokens_at_most = tokens_at_most
        self._answers_at_most = answers_at_most
        self._per_user = per_user
        self._users: dict[str, HeldToken] = {}
        self._askers: dict[str, Asker] = {}
        self._tokens = 0
        self._answers = 0
        self._next_to_go: list[str] = []
        self._watches: dict[str, set[Watch]] = {}

    def __len__(self) -> int:
        return self._tokens

    def answer(self, caller: Caller, request: TokenRequest) -> HeldToken | None:
        """The token that answered this caller's same question last, expired or not."""
        return self.known(caller, request.user_id, request.scopes, request.account)

    def known(
        self, caller: Caller, user_id: str, scopes: tuple[str, ...] | None, account: str | None
    ) -> HeldToken | None:
        """The same, for a question that is not yet put together."""
        token = self._users.get(user_id)
        while token is not None:
            answer = token.answers
            while answer is not None:
                if (
                    answer.asker.caller is caller
                    and answer.scopes == scopes
                    and answer.account == account
                ):
                    return token
                answer = answer.next
            token = token.next
        return None

    def spelled(self, caller: Caller, target: bytes) -> Answer | None:
        """What answered this caller's same request, letter by letter."""
        asker = self._askers.get(caller.name)
        if asker is None or asker.caller is not caller:
            return None
        return asker.answers.get(target)

    def token(self, user_id: str, grant: Grant, held_under: str) -> HeldToken | None:
        """The token held for a grant as it is now and a scope set, expired or not."""
        token = self._find(user_id, grant.id.bytes, held_under)
        return token if token is not None and token.grant_version == grant.version else None

    def keep(self, user_id: str, held_under: str, token: HeldToken, watch: Watch) -> None:
        """Hold a token, unless the user's grants changed while it was being fetched.

        It takes the place of the one before it, also for the questions which that answers, if it
        carries the same. All tokens held of a grant are of one version, the latest that was seen.
        """
        if self.is_suspended:
            return
        version = self._version(user_id, token.grant_bytes)
        if watch.changed or (version is not None and version > token.grant_version):
            return
        if version is not None and version < token.grant_version:
            # The grant has changed, and the notice of it is still on its way, or lost.
            self.forget(user_id)
            watch.changed = False
        before = self._find(user_id, token.grant_bytes, held_under)
        if before is token:
            return
        token.held_under = intern(held_under)
        if before is None:
            self._add(user_id, token)
        else:
            self._replace(before, token)
        self._make_room(user_id)
        self.on_held(token)

    def keep_answer(
        self,
        caller: Caller,
        request: TokenRequest,
        token: HeldToken,
        *,
        target: bytes | None = None,
    ) -> None:
        """Hold which token answers a question, and how the request is spelled, if that is known.

        What no longer is held answers nothing.
        """
        if not any(each is token for each in _chain(self._users.get(request.user_id))):
            return
        token.asked_ttl = max(token.asked_ttl, request.min_ttl)
        asker = self._asker(caller)
        self._drop_answers(
            request.user_id, lambda each: _is_replaced(each, asker, request, token, target)
        )
        if sum(1 for _ in self._answers_of(request.user_id)) >= self._per_user:
            self._drop_answers(request.user_id, lambda _: True)
        answer = Answer(asker, token, once(request.scopes), request.account)
        answer.next, token.answers = token.answers, answer
        self._answers += 1
        if target is not None:
            answer.target = target
            answer.min_ttl = max(LAST_SECOND, request.min_ttl)
            asker.answers[target] = answer
        self._make_room(request.user_id)

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
        self._drop(user_id)

    def forget_all(self) -> None:
        """Any grant may have changed: nothing of what was held, or is under way, is handed out."""
        for watches in self._watches.values():
            for watch in watches:
                watch.changed = True
        for first in self._users.values():
            for token in _chain(first):
                token.alive, token.next, token.answers = False, None, None
        self._users.clear()
        for asker in self._askers.values():
            asker.answers.clear()
        self._tokens = self._answers = 0
        self._next_to_go.clear()
        self.on_all_gone()

    def changed(self, user_id: str, grant_id: UUID, version: int) -> None:
        """A grant has a new version: forget what is older; what was fetched since then stays."""
        held = self._version(user_id, grant_id.bytes)
        if held is None or held < version:
            self.forget(user_id)

    # The chains.

    def _version(self, user_id: str, grant_bytes: bytes) -> int | None:
        """That of a grant whose tokens are held."""
        for token in _chain(self._users.get(user_id)):
            if token.grant_bytes == grant_bytes:
                return token.grant_version
        return None

    def _find(self, user_id: str, grant_bytes: bytes, held_under: str) -> HeldToken | None:
        for token in _chain(self._users.get(user_id)):
            if token.held_under == held_under and token.grant_bytes == grant_bytes:
                return token
        return None

    def _add(self, user_id: str, token: HeldToken) -> None:
        first = self._users.get(user_id)
        if sum(1 for _ in _chain(first)) >= self._per_user:
            self._drop(user_id)
            first = None
        # One string for all: the key, and each token's.
        token.user_id = first.user_id if first is not None else user_id
        token.next = first
        self._users[token.user_id] = token
        self._tokens += 1

    def _replace(self, before: HeldToken, token: HeldToken) -> None:
        if before.scopes != token.scopes:
            # Whether it still answers what that one did is for whoever asks next to find out.
            for answer in _chain(before.answers):
                self._unlearn(answer)
            before.answers = None
        token.user_id, token.next, token.answers = before.user_id, before.next, before.answers
        token.asked_ttl = max(token.asked_ttl, before.asked_ttl)
        token.used, token.used_lately = before.used, before.used_lately
        first = self._users[token.user_id]
        if first is before:
            self._users[token.user_id] = token
        else:
            next(each for each in _chain(first) if each.next is before).next = token
        for answer in _chain(token.answers):
            answer.token = token
        before.alive, before.next, before.answers = False, None, None
        self.on_gone(before)

    def _drop(self, user_id: str) -> None:
        for token in list(_chain(self._users.pop(user_id, None))):
            for answer in _chain(token.answers):
                self._unlearn(answer)
            token.alive, token.next, token.answers = False, None, None
            self._tokens -= 1
            self.on_gone(token)

    def _make_room(self, newest: str) -> None:
        """Keep the bounds, in rounds through all users; the newest one stays."""
        spared = 0
        while len(self._users) > 1 and (
            self._tokens > self._tokens_at_most or self._answers > self._answers_at_most
        ):
            if not self._next_to_go:
                # The oldest last: a list gives up its last item at once.
                self._next_to_go = list(reversed(self._users))
            user_id = self._next_to_go.pop()
            used_lately = [t for t in _chain(self._users.get(user_id)) if t.used_lately]
            for token in used_lately:
                token.used_lately = False
            spared += bool(used_lately)
            if user_id != newest and (not used_lately or spared > _SPARED_IN_A_ROW):
                self._drop(user_id)

    # The answers.

    def _asker(self, caller: Caller) -> Asker:
        asker = self._askers.get(caller.name)
        if asker is None or asker.caller is not caller:
            asker = self._askers[caller.name] = Asker(caller)
        return asker

    def _answers_of(self, user_id: str) -> Iterator[Answer]:
        for token in _chain(self._users.get(user_id)):
            yield from _chain(token.answers)

    def _drop_answers(self, user_id: str, is_dropped: Callable[[Answer], bool]) -> None:
        for token in _chain(self._users.get(user_id)):
            answers, token.answers = list(_chain(token.answers)), None
            for answer in answers:
                if is_dropped(answer):
                    self._unlearn(answer)
                else:
                    answer.next, token.answers = token.answers, answer

    def _unlearn(self, answer: Answer) -> None:
        self._answers -= 1
        if answer.target is not None:
            answer.asker.answers.pop(answer.target, None)


_Link = TypeVar("_Link", HeldToken, Answer)


def _chain(first: _Link | None) -> Iterator[_Link]:
    link = first
    while link is not None:
        this = link
        # Looked up before: whoever is given a link may take it out of the chain.
        link = this.next
        yield this


def _is_replaced(
    known: Answer, asker: Asker, request: TokenRequest, token: HeldToken, target: bytes | None
) -> bool:
    """Whether an answer that is known goes when another is kept for this request."""
    if known.asker is not asker:
        # Of a policy that is no longer in force.
        return known.asker.caller.name == asker.caller.name
    if known.scopes != request.scopes or known.account != request.account:
        return False
    return target is None or known.target in (None, target) or known.token is not token


def _nobody(_token: HeldToken) -> None:
    """Nobody wants to know."""


def _nothing() -> None:
    """Nobody wants to know that, either."""
