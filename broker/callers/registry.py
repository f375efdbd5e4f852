"""The callers in force: finds one by its credential, and follows the callers file as it changes.

Keeps no key and no JWT, only digests. A file that can't be used never takes effect; the one before
it stays.
"""

import asyncio
import logging
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from broker.callers.callers_file import (
    MAX_FILE_BYTES,
    CallersFile,
    CallersFileError,
    decode_callers,
    parse_callers,
)
from broker.callers.concerns import find_concerns
from broker.callers.model import Caller
from broker.callers.verified import VerifiedJwts
from broker.clock import Clock
from broker.issuers.model import Issuer
from broker.telemetry.metrics import Metrics

MAX_CREDENTIAL_BYTES = 4096
"""Room for a workload's JWT; anything longer is refused before it is hashed."""

_SCHEME = b"bearer "
_LONGEST_HEADER = len(_SCHEME) + MAX_CREDENTIAL_BYTES
# RFC 6750 §2.1, b64token.
_CREDENTIAL_BYTES = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/="

logger = logging.getLogger(__name__)

_Argument = TypeVar("_Argument")
_Result = TypeVar("_Result")

Signature = tuple[int, ...]
"""What `stat` tells of a file: device, inode, size and times; or only why it tells nothing."""


class CallerRegistry:
    """Who may call. `load()` once, then keep `watch()` running."""

    def __init__(
        self,
        path: Path,
        allowed_scopes: tuple[str, ...],
        clock: Clock,
        metrics: Metrics,
        *,
        interval: timedelta = timedelta(seconds=1),
    ) -> None:
        self.path = path
        self._allowed_scopes = allowed_scopes
        self._clock = clock
        self._up = metrics.callers_file_up
        self._interval = interval.total_seconds()
        # Its own: a key that was taken out is refused in time, whatever else keeps threads busy.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="callers-file")
        self._find: Callable[[bytes], Caller | None] = dict[bytes, Caller]().get
        self._in_force: Mapping[str, Caller] = {}
        self._digest_in_force = b""
        self._digest_refused = b""
        self._handled: Signature | None = None
        self._unsettled: Signature | None = None
        self.callers: tuple[Caller, ...] = ()
        """As the file in force lists them."""
        self.verified = VerifiedJwts(clock)
        """The workloads' JWTs that are known to be good just now."""
        self.issuers: tuple[Issuer, ...] = ()
        """Whose JWTs the file in force trusts."""
        self.on_change: Callable[[], None] | None = None
        """Told when the callers or issuers have changed; must not fail."""
        self._by_workload: Mapping[tuple[str, str], Sequence[Caller]] = {}
        self.problems: tuple[str, ...] = ()
        """What is wrong with the file on disk, while an older one is in force."""
        self.loaded_at: datetime | None = None
        self.generation = 0
        """Grows with each change of the callers."""

    def load(self) -> None:
        """The first reading. Raises `CallersFileError`."""
        try:
            content, _ = _read(self.path)
            self._install(_parse(content), _digest(content))
        except CallersFileError:
            self._up.set(0)
            raise

    def authenticate(self, authorization: bytes | None) -> Caller | None:
        """Whose credential an `Authorization` header carries: its one value, without the name.

        The same object is answered for as long as the caller's policy stays the same.
        Only digests are compared, so that the time taken tells nothing about a key.
        """
        credential = bearer_of(authorization) if authorization is not None else None
        if credential is None:
            return None
        digest = sha256(credential).digest()
        return self._find(digest) or self.verified.find(digest)

    def with_key(self, key: bytes) -> Caller | None:
        """Whose key this is; a JWT is nobody's key."""
        if len(key) > MAX_CREDENTIAL_BYTES:
            return None
        return self._find(sha256(key).digest())

    def workloads(self, issuer: str, subject: str) -> Sequence[Caller]:
        """The callers that this issuer's JWTs for this subject may prove, by the audience."""
        return self._by_workload.get((issuer, subject), ())

    def named(self, name: str) -> Caller | None:
        """The caller of this name, as the file in force has it."""
        return self._in_force.get(name)

    async def ping(self) -> None:
        """Raises `CallersFileError` while the file on disk is not the one in force."""
        if self.problems:
            raise CallersFileError(self.problems)

    async def watch(self) -> None:
        """Follow the file for ever; a change takes effect within one and a quarter intervals."""
        while True:
            is_changing = await self.look()
            await asyncio.sleep(self._interval / 4 if is_changing else self._interval)

    def close(self) -> None:
        """Let go of the thread; `watch` has ended before."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def look(self) -> bool:
        """One look at the file; True if it is changing, and is to be looked at again soon.

        A change counts once two looks agree on it, so that neither a file that is being written
        nor one that is replaced by way of a deletion is taken for what the operator meant.
        """
        seen = await self._beside(_sight, self.path)
        if seen == self._handled:
            self._unsettled = None
            return False
        if seen != self._unsettled:
            self._unsettled = seen
            return True
        self._unsettled = None
        return await self._take(seen)

    async def _beside(self, work: Callable[[_Argument], _Result], argument: _Argument) -> _Result:
        """Away from the loop: a disk may be slow, and requests are being answered."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, argument)

    async def _take(self, seen: Signature) -> bool:
        """Put the file into force, or refuse it; True if it changed underway."""
        try:
            content, signature = await self._beside(_read, self.path)
        except CallersFileError as error:
            # The next look tries again: what can't be read may become so without a change.
            self._handled, self._unsettled = None, seen
            self._refuse(error, _digest(str(error).encode()))
            return False
        if signature != seen:
            return True
        self._handled = seen
        await self._consider(content)
        return False

    async def _consider(self, content: bytes) -> None:
        digest = _digest(content)
        if digest == self._digest_in_force:
            self._accept(digest)
            return
        try:
            # Away from the loop: a large file takes a while, and requests are being answered.
            file = await self._beside(_parse, content)
        except CallersFileError as error:
            self._refuse(error, digest)
        else:
            self._install(file, digest)

    def _install(self, file: CallersFile, digest: bytes) -> None:
        before = self._in_force
        self._in_force = {caller.name: _kept(before, caller) for caller in file.callers}
        # By the keys of now: one that is no longer listed is nobody's from this moment.
        self._find = {
            digest: self._in_force[caller.name] for digest, caller in file.by_digest().items()
        }.get
        by_workload: dict[tuple[str, str], list[Caller]] = {}
        for caller in self._in_force.values():
            if caller.workload is not None:
                identity = (caller.workload.issuer, caller.workload.subject)
                by_workload.setdefault(identity, []).append(caller)
        self._by_workload = by_workload
        self.verified.forget_all()
        self.callers = file.callers
        self.issuers = file.issuers()
        self.generation += 1
        self.loaded_at = self._clock.now()
        self._accept(digest)
        logger.info(
            "callers file in force",
            extra={"file": str(self.path), "callers": len(file.callers)},
        )
        for concern in find_concerns(file, self._allowed_scopes):
            logger.warning("callers file: %s", concern)
        if self.on_change is not None:
            self.on_change()

    def _accept(self, digest: bytes) -> None:
        if self.problems:
            logger.info("callers file is good again", extra={"file": str(self.path)})
        self._digest_in_force = digest
        self._digest_refused = b""
        self.problems = ()
        self._up.set(1)

    def _refuse(self, error: CallersFileError, digest: bytes) -> None:
        self.problems = tuple(error.problems)
        self._up.set(0)
        if digest == self._digest_refused:
            return
        self._digest_refused = digest
        logger.error(
            "callers file refused, the one before it stays in force",
            extra={"file": str(self.path), "problems": error.problems},
        )


def read_callers(path: Path) -> CallersFile:
    """One reading of a callers file, for commands. Raises `CallersFileError`."""
    content, _ = _read(path)
    return _parse(content)


def _parse(content: bytes) -> CallersFile:
    return parse_callers(decode_callers(content))


def bearer_of(authorization: bytes) -> bytes | None:
    """The credential in an `Authorization` header, if it is one (RFC 6750 §2.1)."""
    if len(authorization) > _LONGEST_HEADER or authorization[:7].lower() != _SCHEME:
        return None
    credential = authorization[7:]
    return None if credential.translate(None, _CREDENTIAL_BYTES) else credential


def _kept(before: Mapping[str, Caller], caller: Caller) -> Caller:
    """The object that was in force before, if its policy is the same."""
    known = before.get(caller.name)
    return known if known is not None and known == caller else caller


def _digest(content: bytes) -> bytes:
    return sha256(content).digest()


def _signature(status: os.stat_result) -> Signature:
    # The time of change of the inode tells what a kept modification time hides.
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _sight(path: Path) -> Signature:
    """What is there now, by way of symbolic links, as a mounted ConfigMap consists of them."""
    try:
        return _signature(path.stat())
    except OSError as error:
        return (error.errno or 0,)


def _read(path: Path) -> tuple[bytes, Signature | None]:
    """A file's content and the signature that it had throughout, None if that changed meanwhile.

    Raises `CallersFileError`.
    """
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise CallersFileError([_cant_read(path, "not a regular file")])
            content = file.read(MAX_FILE_BYTES + 1)
            before, after = _signature(status), _signature(os.fstat(file.fileno()))
    except OSError as error:
        raise CallersFileError([_cant_read(path, error.strerror)]) from error
    return content, after if after == before else None


def _open_without_waiting(path: str, flags: int) -> int:
    # Opening a named pipe would otherwise wait for a writer.
    return os.open(path, flags | os.O_NONBLOCK)


def _cant_read(path: Path, reason: str | None) -> str:
    return f"can't read {path}: {reason or 'an error of the file system'}"
