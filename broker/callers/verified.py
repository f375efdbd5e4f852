"""Workloads' JWTs that were verified before, by their digest: the second time costs a look-up.

Never keeps a JWT, and believes in one no longer than its key, its expiry and the callers file do.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker.callers.model import Caller
from broker.clock import Clock

if TYPE_CHECKING:
    from broker.issuers.key_set import VerificationKey

REMEMBERED_AT_MOST = 10_000


@dataclass(frozen=True, slots=True)
class _Verified:
    caller: Caller
    good_until: float
    key: "VerificationKey"


class VerifiedJwts:
    """A bounded memory; the oldest goes first, and is verified again if it comes back."""

    def __init__(self, clock: Clock, *, at_most: int = REMEMBERED_AT_MOST) -> None:
        self._clock = clock
        self._at_most = at_most
        self._by_digest: dict[bytes, _Verified] = {}

    def find(self, digest: bytes) -> Caller | None:
        """Whose JWT this is, if it is known and still good."""
        known = self._by_digest.get(digest)
        if known is None:
            return None
        if known.good_until <= self._clock.epoch() or not known.key.in_force:
            del self._by_digest[digest]
            return None
        return known.caller

    def remember(
        self, digest: bytes, caller: Caller, *, good_until: float, key: "VerificationKey"
    ) -> None:
        """This JWT proves this caller until then, while the key is in force."""
        if len(self._by_digest) >= self._at_most:
            del self._by_digest[next(iter(self._by_digest))]
        self._by_digest[digest] = _Verified(caller, good_until, key)

    def forget_all(self) -> None:
        """Who may call has changed."""
        self._by_digest.clear()
