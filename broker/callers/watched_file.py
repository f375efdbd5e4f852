"""Reads a small file off the event loop, and polls it for settled changes."""

import asyncio
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

FileSignature = tuple[int, ...]
"""A file's device, inode, size and times, by `stat`; for a failure, its error number."""

_Argument = TypeVar("_Argument")
_Result = TypeVar("_Result")


class UnreadableFileError(Exception):
    """The file cannot be read; the message is one line for an operator."""


class WatchedFile:
    """A file that is polled. Follows symbolic links, of which a mounted ConfigMap consists.

    A change counts once two polls agree on it: a file that is being written, or replaced by way of
    a deletion, does not count yet.
    """

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        """A file longer than `max_bytes` is read up to one byte more."""
        self.path = path
        self._max_bytes = max_bytes
        # A thread of its own, so that a removed key is refused in time however busy others are.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="watched-file")
        self._handled: FileSignature | None = None
        self._unsettled: FileSignature | None = None
        self.is_changing = False
        """True if the last poll saw a change that has not settled; poll again soon."""

    def close(self) -> None:
        """Release the thread. Nothing may be polling any longer."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def run(self, work: Callable[[_Argument], _Result], argument: _Argument) -> _Result:
        """Run work on the file's thread, such as parsing what was read."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, argument)

    async def poll(self) -> bytes | None:
        """Return the content once after each settled change, else None.

        Raises `UnreadableFileError`. The next poll then tries again, because a file may become
        readable without a change.
        """
        self.is_changing = False
        seen = await self.run(_signature_at, self.path)
        if seen == self._handled:
            self._unsettled = None
            return None
        if seen != self._unsettled:
            self._unsettled = seen
            self.is_changing = True
            return None
        try:
            content, signature = await self.run(self._read, self.path)
        except UnreadableFileError:
            self._handled = None
            raise
        self._unsettled = None
        if signature != seen:
            self.is_changing = True
            return None
        self._handled = seen
        return content

    def _read(self, path: Path) -> tuple[bytes, FileSignature | None]:
        return _read_with_signature(path, self._max_bytes)


def read_file(path: Path, *, max_bytes: int) -> bytes:
    """Return the content of a file, up to one byte more than `max_bytes`.

    Raises `UnreadableFileError`.
    """
    content, _ = _read_with_signature(path, max_bytes)
    return content


def _read_with_signature(path: Path, max_bytes: int) -> tuple[bytes, FileSignature | None]:
    """Return the content and the signature; None if the signature changed while reading."""
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UnreadableFileError(_cannot_read(path, "not a regular file"))
            content = file.read(max_bytes + 1)
            before, after = _signature(status), _signature(os.fstat(file.fileno()))
    except OSError as error:
        raise UnreadableFileError(_cannot_read(path, error.strerror)) from error
    return content, after if after == before else None


def _signature(status: os.stat_result) -> FileSignature:
    # The inode's time of change reveals a change that a kept modification time hides.
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _signature_at(path: Path) -> FileSignature:
    try:
        return _signature(path.stat())
    except OSError as error:
        return (error.errno or 0,)


def _open_without_waiting(path: str, flags: int) -> int:
    # Opening a named pipe would otherwise wait for a writer.
    return os.open(path, flags | os.O_NONBLOCK)


def _cannot_read(path: Path, reason: str | None) -> str:
    return f"can't read {path}: {reason or 'a file system error'}"
