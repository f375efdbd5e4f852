"""The token cache: access tokens in memory, ready to be sent, within a bound.

A user's tokens leave it the moment that the user's grants change. The cache decides nothing about
who may have a token: an answer belongs to the very caller object whose policy admitted the request,
and a changed policy has another object.

It has a hundred thousand tokens, so each is a few small objects: equal parts are shared, and a
user's tokens, like a token's answers, are chained instead of listed.
"""

from collections.abc import Callable, Iterator
from sys import intern
from typing import TypeVar
from uuid import UUID

from broker.callers.model import Caller
from broker.grants.model import Grant
from broker.tokens.cache.cached_token import CachedAnswer, CachedToken, CallerAnswers, interned
from broker.tokens.token_request import TokenRequest

LEAST_LIFE_SECONDS = 1.0
"""A token with less than this to live counts as expired: it would expire on its way."""

_SECOND_CHANCES_IN_A_ROW = 100
"""Users with a referenced token that one eviction passes over; then the next user is evicted."""


class Watch:
    """Notes whether a user's grants change while they are read and used: `with cache.watch(…)`."""

    __slots__ = ("_registry", "_user_id", "changed")

    def __init__(self, user_id: str = "", registry: "_Watches | None" = None) -> None:
        """Without a registry, `changed` never becomes true."""
        self.changed = False
        self._user_id = user_id
        self._registry = registry

    def begin(self) -> "Watch":
        """Begin to watch, where `with` does not fit; `end` must follow."""
        if self._registry is not None:
            self._registry.setdefault(self._user_id, set()).add(self)
        return self

    def end(self, *_: object) -> None:
        """Stop watching."""
        if self._registry is not None:
            watches = self._registry[self._user_id]
            watches.discard(self)
            if not watches:
                del self._registry[self._user_id]

    __enter__ = begin
    __exit__ = end


_Watches = dict[str, set[Watch]]


class TokenCache:
    """Bounded cache with second-chance eviction (CLOCK) by user.

    A token that leaves the cache is no longer alive and leaves every index: no revocation could
    find it, and no bound would count it.
    """

    def __init__(
        self,
        *,
        tokens_at_most: int = 100_000,
        answers_at_most: int = 200_000,
        per_user: int = 64,
        on_put: Callable[[CachedToken], None] | None = None,
        on_removed: Callable[[CachedToken], None] | None = None,
        on_cleared: Callable[[], None] | None = None,
    ) -> None:
        """`on_put` and `on_removed` are called with each token that enters or leaves the cache;
        `on_cleared` once, when all leave it together.
        """
        self._on_put = on_put or _ignore
        self._on_removed = on_removed or _ignore
        self._on_cleared = on_cleared or _do_nothing
        self.is_suspended = False
        """While true, nothing is cached."""
        self._tokens_at_most = tokens_at_most
        self._answers_at_most = answers_at_most
        self._per_user = per_user
        self._users: dict[str, CachedToken] = {}
        self._callers: dict[str, CallerAnswers] = {}
        self._tokens = 0
        self._answers = 0
        self._sweep: list[str] = []
        """The users that the CLOCK hand has still to pass, the next one last."""
        self._watches: _Watches = {}

    def __len__(self) -> int:
        return self._tokens

    def answer_to(self, caller: Caller, request: TokenRequest) -> CachedToken | None:
        """Return the token that last answered this caller's equal request, expired or not."""
        return self.find(caller, request.user_id, request.scopes, request.account)

    def find(
        self, caller: Caller, user_id: str, scopes: tuple[str, ...] | None, account: str | None
    ) -> CachedToken | None:
        """Do the same for a request that is not yet an object."""
        token = self._users.get(user_id)
        while token is not None:
            answer = token.answers
            while answer is not None:
                if (
                    answer.asked_by.caller is caller
                    and answer.scopes == scopes
                    and answer.account == account
                ):
                    return token
                answer = answer.next
            token = token.next
        return None

    def find_by_target(self, caller: Caller, target: bytes) -> CachedAnswer | None:
        """Return what answered this caller's request with the same target, byte by byte."""
        answers = self._callers.get(caller.name)
        if answers is None or answers.caller is not caller:
            return None
        return answers.by_target.get(target)

    def find_token(self, user_id: str, grant: Grant, scope_set: str) -> CachedToken | None:
        """Return the token of this version of a grant and a scope set, expired or not."""
        token = self._find(user_id, grant.id.bytes, scope_set)
        return token if token is not None and token.grant_version == grant.version else None

    def put(self, user_id: str, scope_set: str, token: CachedToken, watch: Watch) -> None:
        """Cache a token, unless the user's grants have changed since `watch` began.

        It replaces the token before it, and if it has the same scopes, answers the same requests.
        All cached tokens of a grant are of one version, the latest that was seen.
        """
        if self.is_suspended:
            return
        version = self._version(user_id, token.grant_bytes)
        if watch.changed or (version is not None and version > token.grant_version):
            return
        if version is not None and version < token.grant_version:
            # The grant has changed, and the notification of it is late or lost.
            self.invalidate(user_id)
            watch.changed = False
        before = self._find(user_id, token.grant_bytes, scope_set)
        if before is token:
            return
        token.scope_set = intern(scope_set)
        if before is None:
            self._add(user_id, token)
        else:
            self._replace(before, token)
        self._evict(user_id)
        self._on_put(token)

    def put_answer(
        self,
        caller: Caller,
        request: TokenRequest,
        token: CachedToken,
        *,
        target: bytes | None = None,
    ) -> None:
        """Note that a token answers a request, and the request's HTTP target if it has one.

        Does nothing if the token is not in the cache.
        """
        if not (token.alive and token.scope_set):
            return
        token.longest_min_ttl = max(token.longest_min_ttl, request.min_ttl)
        answers = self._answers_of_caller(caller)
        self._drop_answers(
            request.user_id, lambda each: _is_superseded(each, answers, request, token, target)
        )
        if sum(1 for _ in self._answers_of_user(request.user_id)) >= self._per_user:
            self._drop_answers(request.user_id, lambda _: True)
        answer = CachedAnswer(answers, token, interned(request.scopes), request.account)
        answer.next, token.answers = token.answers, answer
        self._answers += 1
        if target is not None:
            answer.target = target
            answer.min_ttl = max(LEAST_LIFE_SECONDS, request.min_ttl)
            answers.by_target[target] = answer
        self._evict(request.user_id)

    def watch(self, user_id: str) -> Watch:
        """Return a watch of the user's grants, to be entered before they are read."""
        return Watch(user_id, self._watches)

    def invalidate(self, user_id: str) -> None:
        """Drop the user's tokens, because the user's grants have changed."""
        for watch in self._watches.get(user_id, ()):
            watch.changed = True
        self._drop(user_id)

    def invalidate_all(self) -> None:
        """Drop all tokens, because any grant may have changed; requests in progress start over."""
        for watches in self._watches.values():
            for watch in watches:
                watch.changed = True
        for first in self._users.values():
            for token in _chain(first):
                token.alive, token.next, token.answers = False, None, None
        self._users.clear()
        for answers in self._callers.values():
            answers.by_target.clear()
        self._tokens = self._answers = 0
        self._sweep.clear()
        self._on_cleared()

    def invalidate_older(self, user_id: str, grant_id: UUID, version: int) -> None:
        """Drop the user's tokens if they are older than this version of the grant."""
        cached = self._version(user_id, grant_id.bytes)
        if cached is None or cached < version:
            self.invalidate(user_id)

    # The chains.

    def _version(self, user_id: str, grant_bytes: bytes) -> int | None:
        """Return the version of a grant that has cached tokens."""
        for token in _chain(self._users.get(user_id)):
            if token.grant_bytes == grant_bytes:
                return token.grant_version
        return None

    def _find(self, user_id: str, grant_bytes: bytes, scope_set: str) -> CachedToken | None:
        for token in _chain(self._users.get(user_id)):
            if token.scope_set == scope_set and token.grant_bytes == grant_bytes:
                return token
        return None

    def _add(self, user_id: str, token: CachedToken) -> None:
        first = self._users.get(user_id)
        if sum(1 for _ in _chain(first)) >= self._per_user:
            self._drop(user_id)
            first = None
        # One string object for the key and all tokens.
        token.user_id = first.user_id if first is not None else user_id
        token.next = first
        self._users[token.user_id] = token
        self._tokens += 1

    def _replace(self, before: CachedToken, token: CachedToken) -> None:
        if before.scopes != token.scopes:
            # Which requests the new token answers is decided again.
            for answer in _chain(before.answers):
                self._forget_answer(answer)
            before.answers = None
        token.user_id, token.next, token.answers = before.user_id, before.next, before.answers
        token.longest_min_ttl = max(token.longest_min_ttl, before.longest_min_ttl)
        token.used, token.referenced = before.used, before.referenced
        first = self._users[token.user_id]
        if first is before:
            self._users[token.user_id] = token
        else:
            next(each for each in _chain(first) if each.next is before).next = token
        for answer in _chain(token.answers):
            answer.token = token
        before.alive, before.next, before.answers = False, None, None
        self._on_removed(before)

    def _drop(self, user_id: str) -> None:
        for token in list(_chain(self._users.pop(user_id, None))):
            for answer in _chain(token.answers):
                self._forget_answer(answer)
            token.alive, token.next, token.answers = False, None, None
            self._tokens -= 1
            self._on_removed(token)

    def _evict(self, newest: str) -> None:
        """Keep the bounds by second chance (CLOCK) over the users; the newest one stays."""
        spared = 0
        while len(self._users) > 1 and (
            self._tokens > self._tokens_at_most or self._answers > self._answers_at_most
        ):
            if not self._sweep:
                # The oldest last: `list.pop` takes the last item in constant time.
                self._sweep = list(reversed(self._users))
            user_id = self._sweep.pop()
            referenced = [t for t in _chain(self._users.get(user_id)) if t.referenced]
            for token in referenced:
                token.referenced = False
            spared += bool(referenced)
            if user_id != newest and (not referenced or spared > _SECOND_CHANCES_IN_A_ROW):
                self._drop(user_id)

    # The answers.

    def _answers_of_caller(self, caller: Caller) -> CallerAnswers:
        answers = self._callers.get(caller.name)
        if answers is None or answers.caller is not caller:
            answers = self._callers[caller.name] = CallerAnswers(caller)
        return answers

    def _answers_of_user(self, user_id: str) -> Iterator[CachedAnswer]:
        for token in _chain(self._users.get(user_id)):
            yield from _chain(token.answers)

    def _drop_answers(self, user_id: str, is_dropped: Callable[[CachedAnswer], bool]) -> None:
        for token in _chain(self._users.get(user_id)):
            answers, token.answers = list(_chain(token.answers)), None
            for answer in answers:
                if is_dropped(answer):
                    self._forget_answer(answer)
                else:
                    answer.next, token.answers = token.answers, answer

    def _forget_answer(self, answer: CachedAnswer) -> None:
        self._answers -= 1
        if answer.target is not None:
            answer.asked_by.by_target.pop(answer.target, None)


_Link = TypeVar("_Link", CachedToken, CachedAnswer)


def _chain(first: _Link | None) -> Iterator[_Link]:
    link = first
    while link is not None:
        this = link
        # Read before the yield: the consumer may take `this` out of the chain.
        link = this.next
        yield this


def _is_superseded(
    known: CachedAnswer,
    answers: CallerAnswers,
    request: TokenRequest,
    token: CachedToken,
    target: bytes | None,
) -> bool:
    """True if a known answer goes when another one is put for this request."""
    if known.asked_by is not answers:
        # It is of the caller's former policy.
        return known.asked_by.caller.name == answers.caller.name
    if known.scopes != request.scopes or known.account != request.account:
        return False
    return target is None or known.target in (None, target) or known.token is not token


def _ignore(_token: CachedToken) -> None:
    pass


def _do_nothing() -> None:
    pass
