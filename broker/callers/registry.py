"""The callers in force: finds a caller by its credential, and follows the callers file.

Stores no key and no JWT, only digests. An invalid file never takes effect; the one before it stays
in force.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from broker.callers.callers_file import (
    MAX_FILE_BYTES,
    CallersFile,
    CallersFileError,
    decode_callers,
    parse_callers,
)
from broker.callers.file_warnings import find_warnings
from broker.callers.model import Caller
from broker.callers.watched_file import UnreadableFileError, WatchedFile, read_file
from broker.clock import Clock
from broker.issuers.model import Issuer
from broker.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from broker.issuers.verification_keys import VerificationKey

MAX_CREDENTIAL_BYTES = 4096
"""Room for a workload's JWT; a longer credential is refused before it is hashed."""
REMEMBERED_AT_MOST = 10_000
"""Verified JWTs."""

_SCHEME = b"bearer "
_LONGEST_HEADER = len(_SCHEME) + MAX_CREDENTIAL_BYTES
# RFC 6750 §2.1, b64token.
_CREDENTIAL_BYTES = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/="

logger = logging.getLogger(__name__)

OnChange = Callable[[Sequence[Caller], Sequence[Issuer]], None]
"""Receives the callers and trusted issuers of the file in force. Must not fail."""


@dataclass(frozen=True, slots=True)
class _Verified:
    caller: Caller
    expires_at: float
    key: "VerificationKey"


class VerifiedJwts:
    """Workloads' JWTs that were verified before, by digest, so that the next time is a lookup.

    Bounded: the oldest is evicted first, and is verified again if it returns.
    """

    def __init__(self, clock: Clock, *, at_most: int = REMEMBERED_AT_MOST) -> None:
        self._clock = clock
        self._at_most = at_most
        self._by_digest: dict[bytes, _Verified] = {}

    def find(self, digest: bytes) -> Caller | None:
        """Return the caller of a verified JWT that has not expired and whose key is in force."""
        known = self._by_digest.get(digest)
        if known is None:
            return None
        if known.expires_at <= self._clock.epoch() or not known.key.in_force:
            del self._by_digest[digest]
            return None
        return known.caller

    def remember(
        self, digest: bytes, caller: Caller, *, expires_at: float, key: "VerificationKey"
    ) -> None:
        """Remember the caller that a JWT proves; `expires_at` is in seconds since 1970."""
        if len(self._by_digest) >= self._at_most:
            del self._by_digest[next(iter(self._by_digest))]
        self._by_digest[digest] = _Verified(caller, expires_at, key)

    def forget_all(self) -> None:
        """Forget all JWTs, because the callers have changed."""
        self._by_digest.clear()


class CallerRegistry:
    """The callers of the file in force. Call `load()` once, then keep `watch()` running."""

    def __init__(
        self,
        path: Path,
        allowed_scopes: tuple[str, ...],
        clock: Clock,
        metrics: Metrics,
        *,
        interval: timedelta = timedelta(seconds=1),
        on_change: OnChange | None = None,
    ) -> None:
        """`on_change` is called with each file that takes effect, the first one included."""
        self.path = path
        self._file = WatchedFile(path, max_bytes=MAX_FILE_BYTES)
        self._allowed_scopes = allowed_scopes
        self._clock = clock
        self._up = metrics.callers_file_up
        self._interval = interval.total_seconds()
        self._on_change = on_change
        self._find_by_key: Callable[[bytes], Caller | None] = dict[bytes, Caller]().get
        self._by_name: Mapping[str, Caller] = {}
        self._by_workload: Mapping[tuple[str, str], Sequence[Caller]] = {}
        self._digest_in_force = b""
        self._digest_rejected = b""
        self.callers: tuple[Caller, ...] = ()
        """As the file in force lists them."""
        self.issuers: tuple[Issuer, ...] = ()
        """The issuers that the file in force trusts."""
        self.verified = VerifiedJwts(clock)
        self.problems: tuple[str, ...] = ()
        """The problems of the file on disk, while an older one is in force."""
        self.loaded_at: datetime | None = None
        self.generation = 0
        """Grows with each change of the callers."""

    def load(self) -> None:
        """Put the file into force for the first time. Raises `CallersFileError`."""
        try:
            content = _read(self.path)
            self._install(_parse(content), _digest(content))
        except CallersFileError:
            self._up.set(0)
            raise

    def authenticate(self, authorization: bytes | None) -> Caller | None:
        """Return the caller of an `Authorization` header's only value.

        It is the same object as long as the caller's policy stays the same. Only digests are
        compared, so that the time taken reveals nothing about a key.
        """
        credential = bearer_of(authorization) if authorization is not None else None
        if credential is None:
            return None
        digest = sha256(credential).digest()
        return self._find_by_key(digest) or self.verified.find(digest)

    def with_key(self, key: bytes) -> Caller | None:
        """Return the caller with this key; a JWT is not a key."""
        if len(key) > MAX_CREDENTIAL_BYTES:
            return None
        return self._find_by_key(sha256(key).digest())

    def workloads(self, issuer: str, subject: str) -> Sequence[Caller]:
        """Return the callers that JWTs of this issuer and subject may prove, by their audience."""
        return self._by_workload.get((issuer, subject), ())

    def named(self, name: str) -> Caller | None:
        """Return the caller of this name."""
        return self._by_name.get(name)

    async def ping(self) -> None:
        """Raises `CallersFileError` while the file on disk is not the one in force."""
        if self.problems:
            raise CallersFileError(self.problems)

    async def watch(self) -> None:
        """Follow the file for ever; a change takes effect within one and a quarter intervals."""
        while True:
            is_changing = await self.poll()
            await asyncio.sleep(self._interval / 4 if is_changing else self._interval)

    def close(self) -> None:
        """Release the thread; `watch` must have ended."""
        self._file.close()

    async def poll(self) -> bool:
        """Poll the file once; return True if it is changing and should be polled again soon."""
        try:
            content = await self._file.poll()
        except UnreadableFileError as error:
            self._reject(CallersFileError([str(error)]), _digest(str(error).encode()))
        else:
            if content is not None:
                await self._take(content)
        return self._file.is_changing

    async def _take(self, content: bytes) -> None:
        """Put a file into force, or reject it."""
        digest = _digest(content)
        if digest == self._digest_in_force:
            self._accept(digest)
            return
        try:
            # Off the event loop: parsing a large file takes a while.
            file = await self._file.run(_parse, content)
        except CallersFileError as error:
            self._reject(error, digest)
        else:
            self._install(file, digest)

    def _install(self, file: CallersFile, digest: bytes) -> None:
        before = self._by_name
        by_name = {caller.name: _unchanged(before, caller) for caller in file.callers}
        by_workload: dict[tuple[str, str], list[Caller]] = {}
        for caller in by_name.values():
            if caller.workload is not None:
                identity = (caller.workload.issuer, caller.workload.subject)
                by_workload.setdefault(identity, []).append(caller)
        self._by_name, self._by_workload = by_name, by_workload
        # From the file's keys, not the callers': a removed key is unknown from this moment.
        by_key = {key: by_name[caller.name] for key, caller in file.by_digest().items()}
        self._find_by_key = by_key.get
        self.verified.forget_all()
        self.callers = file.callers
        self.issuers = file.issuers()
        self.generation += 1
        self.loaded_at = self._clock.now()
        self._accept(digest)
        logger.info(
            "loaded the callers file",
            extra={
                "event": "callers_file_loaded",
                "file": str(self.path),
                "callers": len(file.callers),
            },
        )
        for warning in find_warnings(file, self._allowed_scopes):
            logger.warning(
                "the callers file is valid, with a warning",
                extra={"event": "callers_file_warning", "warning": warning},
            )
        if self._on_change is not None:
            self._on_change(self.callers, self.issuers)

    def _accept(self, digest: bytes) -> None:
        if self.problems:
            logger.info(
                "the callers file is valid again",
                extra={"event": "callers_file_recovered", "file": str(self.path)},
            )
        self._digest_in_force = digest
        self._digest_rejected = b""
        self.problems = ()
        self._up.set(1)

    def _reject(self, error: CallersFileError, digest: bytes) -> None:
        self.problems = tuple(error.problems)
        self._up.set(0)
        if digest == self._digest_rejected:
            return
        self._digest_rejected = digest
        logger.error(
            "rejected the callers file; the previous one stays in force",
            extra={
                "event": "callers_file_rejected",
                "file": str(self.path),
                "problems": error.problems,
            },
        )


def read_callers(path: Path) -> CallersFile:
    """Read a callers file once, for commands. Raises `CallersFileError`."""
    return _parse(_read(path))


def bearer_of(authorization: bytes) -> bytes | None:
    """Return the credential of a well-formed `Authorization: Bearer` header (RFC 6750 §2.1)."""
    if len(authorization) > _LONGEST_HEADER or authorization[:7].lower() != _SCHEME:
        return None
    credential = authorization[7:]
    return None if credential.translate(None, _CREDENTIAL_BYTES) else credential


def _read(path: Path) -> bytes:
    try:
        return read_file(path, max_bytes=MAX_FILE_BYTES)
    except UnreadableFileError as error:
        raise CallersFileError([str(error)]) from error


def _parse(content: bytes) -> CallersFile:
    return parse_callers(decode_callers(content))


def _unchanged(before: Mapping[str, Caller], caller: Caller) -> Caller:
    """Return the object that was in force before, if its policy is the same."""
    known = before.get(caller.name)
    return known if known is not None and known == caller else caller


def _digest(content: bytes) -> bytes:
    return sha256(content).digest()
