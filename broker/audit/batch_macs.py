"""MACs over audit batches, and the keys they take: proof that records are as they were written.

Each MAC covers the digest of one batch and the MAC of the batch before it, which makes a chain.
Pure computation: nothing here reads or writes a table.
"""

import hashlib
import hmac
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import asyncpg

from broker.audit.records import microseconds_of
from broker.crypto.keys import derive_key
from broker.secret import Secret

INITIAL_MAC = bytes(32)
"""Takes the place of the previous MAC in the first batch."""


@dataclass(frozen=True, slots=True)
class ChainHead:
    """A batch's number and MAC. Kept where the database's owner can't change it, it proves that the
    chain was once that long.
    """

    number: int
    mac: bytes

    def __str__(self) -> str:
        return f"{self.number}:{self.mac.hex()}"


@dataclass(frozen=True, slots=True)
class BatchContents:
    """The facts about a batch's records that its MAC covers."""

    batch_id: int
    records: int
    first_at: datetime
    last_at: datetime
    digest: bytes


@dataclass(frozen=True, slots=True)
class BatchMac:
    """A link of the chain as the table `audit_seals` stores it: unverified."""

    number: int
    contents: BatchContents
    previous_mac: bytes
    key_id: str
    mac: bytes

    @classmethod
    def from_row(cls, row: asyncpg.Record) -> "BatchMac":
        """Read a row of `audit_seals`."""
        contents = BatchContents(
            row["batch"], row["records"], row["first_at"], row["last_at"], row["digest"]
        )
        return cls(row["number"], contents, row["previous_mac"], row["key_id"], row["mac"])

    @property
    def message(self) -> bytes:
        """The bytes that the MAC covers."""
        what = self.contents
        times = (microseconds_of(what.first_at), microseconds_of(what.last_at))
        numbers = (self.number, what.batch_id, what.records, *times)
        return b"seal\0" + _packed(numbers, what.digest, self.previous_mac, self.key_id.encode())


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Stands for all batches up to a number, once retention has deleted them: unverified."""

    number: int
    last_mac: bytes
    """The MAC of the last batch that was deleted."""
    began_at: datetime
    """The time of the chain's first record."""
    until: datetime
    """The time of the last record that was deleted."""
    records: int
    faults: int
    """Faults of the chain that retention found while deleting."""
    unverified: int
    """Batches that were deleted while the key they name was not configured."""
    key_id: str
    mac: bytes

    @classmethod
    def from_row(cls, row: asyncpg.Record) -> "Checkpoint":
        """Read a row of `audit_checkpoints`."""
        return cls(
            number=row["number"],
            last_mac=row["seal_mac"],
            began_at=row["began_at"],
            until=row["until"],
            records=row["records"],
            faults=row["faults"],
            unverified=row["unverified"],
            key_id=row["key_id"],
            mac=row["mac"],
        )

    @property
    def message(self) -> bytes:
        """The bytes that the MAC covers.

        With `unverified` 0 they are those of releases that had no such count, so that each release
        can verify the other's checkpoints.
        """
        times = (microseconds_of(self.began_at), microseconds_of(self.until))
        numbers = (self.number, *times, self.records, self.faults)
        if not self.unverified:
            return b"checkpoint\0" + _packed(numbers, self.last_mac, self.key_id.encode())
        counted = (*numbers, self.unverified)
        return b"counting checkpoint\0" + _packed(counted, self.last_mac, self.key_id.encode())


def _packed(numbers: Sequence[int], *parts: bytes) -> bytes:
    """Encode unambiguously, whatever the parts contain."""
    lengths = [len(part) for part in parts]
    return struct.pack(f">{len(numbers)}q{len(lengths)}I", *numbers, *lengths) + b"".join(parts)


@dataclass(frozen=True, slots=True)
class AuditKey:
    """A MAC key, and the id that is stored beside each MAC it made."""

    id: str
    key: bytes

    def mac(self, message: bytes) -> bytes:
        """HMAC-SHA256."""
        return hmac.digest(self.key, message, hashlib.sha256)


class AuditKeys:
    """Signs with the first key, verifies with any."""

    def __init__(self, keys: Sequence[AuditKey]) -> None:
        if not keys:
            raise ValueError("an audit trail needs at least one key")
        self.current = keys[0]
        self._by_id = {key.id: key for key in keys}

    def sign(self, contents: BatchContents, after: ChainHead) -> BatchMac:
        """Return the next link of the chain."""
        key = self.current
        unsigned = BatchMac(after.number + 1, contents, after.mac, key.id, b"")
        return replace(unsigned, mac=key.mac(unsigned.message))

    def checkpoint(
        self,
        *,
        number: int,
        last_mac: bytes,
        began_at: datetime,
        until: datetime,
        records: int,
        faults: int,
        unverified: int,
    ) -> Checkpoint:
        """Return a signed checkpoint for all batches up to `number`."""
        unsigned = Checkpoint(
            number, last_mac, began_at, until, records, faults, unverified, self.current.id, b""
        )
        return self.sign_again(unsigned)

    def sign_again(self, checkpoint: Checkpoint) -> Checkpoint:
        """Return the checkpoint, signed with the first key. The caller has verified it before."""
        key = self.current
        unsigned = replace(checkpoint, key_id=key.id)
        return replace(unsigned, mac=key.mac(unsigned.message))

    def has_key_of(self, signed: BatchMac | Checkpoint) -> bool:
        """True if the key that `signed` names is configured."""
        return signed.key_id in self._by_id

    def is_genuine(self, signed: BatchMac | Checkpoint) -> bool:
        """True if one of these keys made this MAC over exactly these contents."""
        key = self._by_id.get(signed.key_id)
        return key is not None and hmac.compare_digest(key.mac(signed.message), signed.mac)


def audit_keys(secret_keys: Sequence[Secret]) -> AuditKeys:
    """Derive one key from each `SECRET_KEY`, in their order. The ids reveal nothing of the keys."""
    return AuditKeys(
        [
            AuditKey(
                id="audit:" + derive_key(secret_key, "audit seal key id")[:8].hex(),
                key=derive_key(secret_key, "audit seals"),
            )
            for secret_key in secret_keys
        ]
    )
