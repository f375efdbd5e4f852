"""Caches one issuer's verification keys, selects the key of a JWS, and verifies its signature.

Keys stay in use while the issuer is unavailable, for a bounded time; a key that the issuer has
removed from its set is no longer in force after the next fetch.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any

from broker.clock import Clock
from broker.issuers.model import JwtRefused
from broker.issuers.unverified_jwt import UnverifiedJws
from broker.outbound.cached_fetch import RETRY_WITHOUT, CachedFetch, ServerUnavailable

if TYPE_CHECKING:
    from broker.issuers.verification_keys import VerificationKey

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KeyCachePolicy:
    """When keys are fetched again, and how long they stay in use."""

    max_age: timedelta
    """`refresh` fetches older keys again."""
    retry_after_failure: timedelta
    """The same pause after a failed fetch."""
    unknown_key_fetches: int
    unknown_key_span: timedelta
    """JWSs with unknown key ids may cause this many fetches in this span. The first is made
    immediately, however young the keys are: an issuer may sign with a key the moment after it has
    published it."""
    stale_at_most: timedelta | None
    """Age up to which keys stay in use that cannot be fetched again; None for no limit."""


class KeyCache:
    """The keys of one issuer. Fetches are a single flight."""

    def __init__(
        self,
        issuer: str,
        fetch: Callable[[], Coroutine[Any, Any, "list[VerificationKey]"]],
        clock: Clock,
        policy: KeyCachePolicy,
        *,
        unavailable: Callable[[str], ServerUnavailable],
        on_availability: Callable[[bool], None] = lambda _is_available: None,
    ) -> None:
        """`unavailable` makes from a reason the exception that `fetch` raises."""
        self.issuer = issuer
        self._fetch_keys = fetch
        self._clock = clock
        self._policy = policy
        self._unavailable = unavailable
        self._on_availability = on_availability
        self._fetch = CachedFetch(self._fetch_and_install, clock, on_failure=self._log_change)
        self._keys: list[VerificationKey] = []
        self._installed_at = float("-inf")
        self._unknown_key_fetches: deque[float] = deque(maxlen=policy.unknown_key_fetches)
        self._is_retired = False

    @property
    def failure(self) -> ServerUnavailable | None:
        """The failure of the last fetch, if it failed."""
        return self._fetch.failure

    @property
    def is_fetching(self) -> bool:
        """True while the issuer is being asked for its keys."""
        return self._fetch.is_fetching

    @property
    def was_ever_fetched(self) -> bool:
        """True once a fetch has ended, successfully or not."""
        return self.failure is not None or self._installed_at > 0

    async def verify(self, jws: UnverifiedJws) -> "VerificationKey":
        """Return the key that signed a JWS.

        Raises `JwtRefused`, or the failure of the fetch if the key is unknown because of it.
        """
        key = await self.find(jws)
        if key is None:
            raise JwtRefused("unknown_key")
        if not key.verify(jws):
            key = await self._find_newer(jws, key)
            if key is None or not key.verify(jws):
                raise JwtRefused("signature")
        return key

    async def find(self, jws: UnverifiedJws) -> "VerificationKey | None":
        """Return the key that a JWS names, or None if the issuer has no such key.

        Raises the failure of the fetch if that cannot be known.
        """
        self._drop_stale_keys()
        key = _select(self._keys, jws)
        if key is not None:
            return key
        if self.is_fetching:
            await self._try_fetch()
            key = _select(self._keys, jws)
        # A fetch that began earlier may have returned the keys from before this one.
        if key is None and (self.is_fetching or self._may_fetch_for_unknown_key()):
            await self._try_fetch()
            key = _select(self._keys, jws)
        if key is None and self.failure is not None:
            raise self.failure.with_traceback(None)
        return key

    async def refresh(self) -> None:
        """Fetch the keys again if they are due. A failure is recorded, not raised."""
        self._drop_stale_keys()
        failed = self.failure is not None
        pause = self._policy.retry_after_failure if failed else self._policy.max_age
        if not self._fetch.was_tried_within(pause if self._keys else RETRY_WITHOUT):
            await self._try_fetch()

    def retire(self) -> None:
        """Invalidate everything that these keys have verified, and whatever they verify later."""
        self._is_retired = True
        self._install([])

    async def aclose(self) -> None:
        """Cancel the running fetch."""
        await self._fetch.aclose()

    async def _find_newer(
        self, jws: UnverifiedJws, tried: "VerificationKey"
    ) -> "VerificationKey | None":
        """Return another key of the same name than the one that did not fit, if there is one now.

        An issuer may use a key id again, or none at all.
        """
        if _select(self._keys, jws) is tried and self._may_fetch_for_unknown_key():
            await self._try_fetch()
        key = _select(self._keys, jws)
        return key if key is not tried else None

    def _may_fetch_for_unknown_key(self) -> bool:
        """True if a JWS whose key is unknown may cause a fetch; the fetch then counts as made."""
        if not self._keys:
            return not self._fetch.was_tried_within(RETRY_WITHOUT)
        fetches, now = self._unknown_key_fetches, self._clock.epoch()
        span = self._policy.unknown_key_span.total_seconds()
        if len(fetches) == fetches.maxlen and 0 <= now - fetches[0] < span:
            return False
        fetches.append(now)
        return True

    async def _try_fetch(self) -> None:
        try:
            await self._fetch.fetch()
        except ServerUnavailable:
            return  # Recorded as `failure`.

    async def _fetch_and_install(self) -> None:
        try:
            keys = await self._fetch_keys()
            # Also without a usable key this is the issuer's answer: the old keys go.
            self._install(keys)
            self._installed_at = self._clock.epoch()
            if not keys:
                raise self._unavailable("no_usable_key")
        except ServerUnavailable:
            self._report(is_available=False)
            raise
        self._report(is_available=True)

    def _report(self, *, is_available: bool) -> None:
        if not self._is_retired:
            self._on_availability(is_available)

    def _log_change(self, failure: ServerUnavailable | None) -> None:
        if self._is_retired:
            return
        facts: dict[str, object] = {"issuer": self.issuer, "keys": len(self._keys)}
        if failure is None:
            logger.info(
                "the keys of an issuer are available again",
                extra={"event": "issuer_keys_recovered", **facts},
            )
        else:
            logger.warning(
                "the keys of an issuer are unavailable",
                extra={"event": "issuer_keys_unavailable", "reason": failure.reason, **facts},
            )

    def _install(self, keys: "list[VerificationKey]") -> None:
        """Put keys into force. An unchanged key stays the same object, so that what it verified
        stays valid.
        """
        known = {key.identity: key for key in self._keys}
        installed = [known.pop(key.identity, key) for key in keys]
        for removed in known.values():
            removed.in_force = False
        for key in installed:
            key.in_force = not self._is_retired
        self._keys = installed

    def _drop_stale_keys(self) -> None:
        limit = self._policy.stale_at_most
        if limit is None or not self._keys:
            return
        if self._clock.epoch() - self._installed_at > limit.total_seconds():
            logger.error(
                "the keys of an issuer are too old and no longer in use",
                extra={"event": "issuer_keys_expired", "issuer": self.issuer},
            )
            self._install([])


async def parse_key_set(document: Mapping[str, Any]) -> "list[VerificationKey]":
    """Return the usable keys of a JWK set."""
    # Imported when it is needed, and off the event loop: it takes 50 ms.
    await asyncio.to_thread(import_module, "broker.issuers.verification_keys")
    from broker.issuers.verification_keys import read_keys  # noqa: PLC0415

    return read_keys(document)


def _select(keys: "Sequence[VerificationKey]", jws: UnverifiedJws) -> "VerificationKey | None":
    """Return the key that a JWS names; without a name, the only key that fits."""
    fitting = [key for key in keys if key.fits(jws.algorithm)]
    if jws.key_id is not None:
        fitting = [key for key in fitting if key.key_id == jws.key_id]
        return fitting[0] if fitting else None
    return fitting[0] if len(fitting) == 1 else None
