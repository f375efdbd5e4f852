"""What proves that audit records are as they were written: seals, and the keys they take.

A seal holds the digest of one batch and the MAC of the seal before it. Knows nothing of tables.
"""

import hashlib
import hmac
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

BEGINNING = bytes(32)
"""The MAC before the first seal's."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Head:
    """A place in the chain, to be kept where the database's owner can't change it."""

    number: int
    mac: bytes

    def __str__(self) -> str:
        return f"{self.number}:{self.mac.hex()}"


@dataclass(frozen=True, slots=True)
class Contents:
    """What a seal says of its batch."""

    batch: int
    records: int
    first_at: datetime
    last_at: datetime
    digest: bytes


@dataclass(frozen=True, slots=True)
class Seal:
    """A link of the chain, as it is stored: unverified."""

    number: int
    contents: Contents
    previous_mac: bytes
    key_id: str
    mac: bytes

    @property
    def message(self) -> bytes:
        """What is signed."""
        what = self.contents
        numbers = (self.number, what.batch, what.records, _us(what.first_at), _us(what.last_at))
        return b"seal\0" + _packed(numbers, what.digest, self.previous_mac, self.key_id.encode())


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What stands for all seals up to a number, once retention has deleted them: unverified."""

    number: int
    seal_mac: bytes
    began_at: datetime
    """When the chain's first record happened."""
    until: datetime
    """When the last of what was deleted happened."""
    records: int
    faults: int
    """What was found wrong with the chain while deleting."""
    unverified: int
    """Seals that were deleted without the key that they say they were made with."""
    key_id: str
    mac: bytes

    @property
    def message(self) -> bytes:
        """What is signed; where all could be verified, as releases did that did not count it."""
        times = (_us(self.began_at), _us(self.until))
        numbers = (self.number, *times, self.records, self.faults)
        if not self.unverified:
            return b"checkpoint\0" + _packed(numbers, self.seal_mac, self.key_id.encode())
        counted = (*numbers, self.unverified)
        return b"counting checkpoint\0" + _packed(counted, self.seal_mac, self.key_id.encode())


def _us(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def moment_of(microseconds: int) -> datetime:
    """So long after 1970, exactly."""
    return _EPOCH + timedelta(microseconds=microseconds)


def _packed(numbers: Sequence[int], *parts: bytes) -> bytes:
    """Unambiguous whatever the parts contain."""
    lengths = [len(part) for part in parts]
    return struct.pack(f">{len(numbers)}q{len(lengths)}I", *numbers, *lengths) + b"".join(parts)


@dataclass(frozen=True, slots=True)
class SealKey:
    """A key for seals, and the id that is stored beside what it signed."""

    id: str
    key: bytes

    def mac(self, message: bytes) -> bytes:
        """HMAC-SHA256."""
        return hmac.digest(self.key, message, hashlib.sha256)


class SealKeys:
    """Signs with the first key, verifies with any."""

    def __init__(self, keys: Sequence[SealKey]) -> None:
        if not keys:
            raise ValueError("there is no key to seal with")
        self.current = keys[0]
        self._by_id = {key.id: key for key in keys}

    def seal(self, contents: Contents, after: Head) -> Seal:
        """The next link of the chain."""
        key = self.current
        unsigned = Seal(after.number + 1, contents, after.mac, key.id, b"")
        return replace(unsigned, mac=key.mac(unsigned.message))

    def checkpoint(
        self,
        *,
        number: int,
        seal_mac: bytes,
        began_at: datetime,
        until: datetime,
        records: int,
        faults: int,
        unverified: int,
    ) -> Checkpoint:
        """What stands for all seals up to this number."""
        unsigned = Checkpoint(
            number, seal_mac, began_at, until, records, faults, unverified, self.current.id, b""
        )
        return self.signed_anew(unsigned)

    def signed_anew(self, checkpoint: Checkpoint) -> Checkpoint:
        """The same, signed with the first key; whoever asks has verified it."""
        key = self.current
        unsigned = replace(checkpoint, key_id=key.id)
        return replace(unsigned, mac=key.mac(unsigned.message))

    def knows(self, signed: Seal | Checkpoint) -> bool:
        """Whether the key that is said to have signed it is configured."""
        return signed.key_id in self._by_id

    def is_genuine(self, signed: Seal | Checkpoint) -> bool:
        """Whether one of these keys made it, as it is."""
        key = self._by_id.get(signed.key_id)
        return key is not None and hmac.compare_digest(key.mac(signed.message), signed.mac)
