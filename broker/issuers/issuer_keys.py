"""One issuer's keys as this process holds them: fetched in good time, and at a bounded rate.

Keys go on serving while the issuer is away, but not for ever; a key that the issuer has taken out
of its set is no longer in force from the next look on.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING

from broker.clock import Clock
from broker.issuers.documents import IssuerDocuments
from broker.issuers.model import Issuer, IssuerUnavailable
from broker.issuers.unverified import UnverifiedJwt
from broker.telemetry.metrics import Metrics

KEYS_AGE = timedelta(minutes=1)
"""How old the keys get before they are looked at again: so long may a removed one still count."""
RETRY_AFTER_FAILURE = timedelta(seconds=10)
"""The same after a look that failed."""
RETRY_WITHOUT = timedelta(seconds=2)
"""The same while there are no keys at all."""
UNKNOWN_KEY_LOOKS, UNKNOWN_KEY_SPAN = 3, timedelta(seconds=30)
"""So many looks in so long may JWTs with unknown key ids cause. The first is taken at once, however
fresh the keys are: an issuer may sign with a key the moment after it has published it."""
STALE_AT_MOST = timedelta(hours=24)
"""How long keys go on serving that can't be looked at again."""

if TYPE_CHECKING:
    from broker.issuers.key_set import VerificationKey

logger = logging.getLogger(__name__)


class IssuerKeys:
    """Finds the key of a JWT. Looks are shared: whoever comes meanwhile waits for the same one."""

    def __init__(
        self, issuer: Issuer, documents: IssuerDocuments, clock: Clock, metrics: Metrics
    ) -> None:
        self.issuer = issuer
        self._documents = documents
        self._clock = clock
        self._up = metrics.issuer_up
        self._keys: list[VerificationKey] = []
        self._fetched_at = self._asked_at = float("-inf")
        self._unknown_asked_at: deque[float] = deque(maxlen=UNKNOWN_KEY_LOOKS)
        self.failure: str | None = None
        """Why the last look failed, if it did."""
        self._looking: asyncio.Task[None] | None = None
        self._is_retired = False

    @property
    def is_looking(self) -> bool:
        """Whether the issuer is being asked just now."""
        return self._looking is not None

    async def find(self, jwt: UnverifiedJwt) -> "VerificationKey | None":
        """The key that the JWT names, or None if the issuer has no such key.

        Raises `IssuerUnavailable` if that can't be known.
        """
        self._drop_what_is_too_old()
        key = _pick(self._keys, jwt)
        if key is not None:
            return key
        if self._looking is not None:
            await self._look()
            key = _pick(self._keys, jwt)
        # A look that was under way may have seen the keys from before this one.
        if key is None and (self._looking is not None or self._may_ask_for_unknown()):
            await self._look()
            key = _pick(self._keys, jwt)
        if key is None and self.failure is not None:
            raise IssuerUnavailable(self.issuer.url, self.failure)
        return key

    async def find_newer(
        self, jwt: UnverifiedJwt, tried: "VerificationKey"
    ) -> "VerificationKey | None":
        """Another key by the same name than the one that did not fit, if the issuer has one now.

        An issuer may use a key id again, or none at all.
        """
        if _pick(self._keys, jwt) is tried and self._may_ask_for_unknown():
            await self._look()
        key = _pick(self._keys, jwt)
        return key if key is not tried else None

    async def refresh(self) -> None:
        """Look at the issuer again if it is time; its being away is noted, not raised."""
        self._drop_what_is_too_old()
        pause = KEYS_AGE if self.failure is None else RETRY_AFTER_FAILURE
        if self._is_due(pause if self._keys else RETRY_WITHOUT):
            await self._look()

    def retire(self) -> None:
        """Nothing that was verified by these keys counts any longer, or ever will."""
        self._is_retired = True
        self._install([])
        if self.failure is not None or self._fetched_at > 0:
            # The issuer is no longer configured, or no longer like this.
            self._up.remove(self.issuer.url)

    async def aclose(self) -> None:
        """Give up a look that is under way; nobody may be waiting for it."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    def _is_due(self, pause: timedelta) -> bool:
        return self._is_past(self._asked_at, pause)

    def _may_ask_for_unknown(self) -> bool:
        """Whether a JWT whose key is unknown is worth a look; if so, it counts as taken."""
        if not self._keys:
            return self._is_due(RETRY_WITHOUT)
        looks = self._unknown_asked_at
        if len(looks) == UNKNOWN_KEY_LOOKS and not self._is_past(looks[0], UNKNOWN_KEY_SPAN):
            return False
        looks.append(self._clock.epoch())
        return True

    def _is_past(self, moment: float, pause: timedelta) -> bool:
        # A clock set back must not put the next look off until it has caught up.
        return not 0 <= self._clock.epoch() - moment < pause.total_seconds()

    async def _look(self) -> None:
        if self._looking is None:
            self._looking = asyncio.create_task(self._fetch(), name=f"keys of {self.issuer.url}")
        # Whoever asked may go away; the others still wait.
        await asyncio.shield(self._looking)

    async def _fetch(self) -> None:
        self._asked_at = self._clock.epoch()
        try:
            # Not before it is needed, and not on the loop: it takes a twentieth of a second.
            await asyncio.to_thread(import_module, "broker.issuers.key_set")
            from broker.issuers.key_set import read_keys  # noqa: PLC0415

            document = await self._documents.key_set(self.issuer)
        except IssuerUnavailable as error:
            self._note(error.reason)
        else:
            # If there is none among them, the issuer has spoken all the same: the old ones go.
            self._install(read_keys(document))
            self._fetched_at = self._clock.epoch()
            self._note(None if self._keys else "no_usable_key")
        finally:
            self._asked_at = self._clock.epoch()
            self._looking = None

    def _note(self, failure: str | None) -> None:
        if self._is_retired:
            return
        self._up.labels(issuer=self.issuer.url).set(0 if failure else 1)
        if failure != self.failure:
            facts = {"issuer": self.issuer.url, "keys": len(self._keys)}
            if failure is None:
                logger.info("an issuer's keys can be had again", extra=facts)
            else:
                logger.warning("an issuer's keys can't be had", extra={**facts, "reason": failure})
        self.failure = failure

    def _install(self, fresh: "list[VerificationKey]") -> None:
        """The same key stays the same object, so that what it verified stays known."""
        known = {key.identity: key for key in self._keys}
        keys = [known.pop(key.identity, key) for key in fresh]
        for gone in known.values():
            gone.in_force = False
        for key in keys:
            key.in_force = not self._is_retired
        self._keys = keys

    def _drop_what_is_too_old(self) -> None:
        age = self._clock.epoch() - self._fetched_at
        if self._keys and age > STALE_AT_MOST.total_seconds():
            logger.error(
                "an issuer has been away for too long; its keys no longer count",
                extra={"issuer": self.issuer.url},
            )
            self._install([])


def _pick(keys: "Sequence[VerificationKey]", jwt: UnverifiedJwt) -> "VerificationKey | None":
    """The key that a JWT names; one that names none may only mean the only key that fits."""
    fitting = [key for key in keys if key.fits(jwt.algorithm)]
    if jwt.key_id is not None:
        fitting = [key for key in fitting if key.key_id == jwt.key_id]
        return fitting[0] if fitting else None
    return fitting[0] if len(fitting) == 1 else None
