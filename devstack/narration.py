"""What `make run` says while it works: one short line a step, with how long it took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

_GREEN, _RED, _DIM, _BOLD, _PLAIN = "\033[32m", "\033[31m", "\033[2m", "\033[1m", "\033[0m"


class Step:
    """A step under way; `detail` is said at its end, such as the address that was found."""

    def __init__(self) -> None:
        self.detail = ""


class Narrator:
    """Writes for a person; colours only where `stream` is a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._colours = stream.isatty()

    @contextmanager
    def step(self, doing: str) -> Iterator[Step]:
        """Say what is being done before it is, and whether it worked, and how long it took."""
        self._write(f"  {doing} … ")
        started, step = time.monotonic(), Step()
        try:
            yield step
        except BaseException:
            self._write(self._in(_RED, "✗") + "\n")
            raise
        took = self._in(_DIM, f"{time.monotonic() - started:.1f} s")
        detail = f"  {step.detail}" if step.detail else ""
        self._write(f"{self._in(_GREEN, '✓')} {took}{detail}\n")

    def say(self, line: str = "") -> None:
        self._write(line + "\n")

    def heading(self, line: str) -> None:
        self._write(self._in(_BOLD, line) + "\n")

    def complain(self, line: str) -> None:
        self._write(self._in(_RED, line) + "\n")

    def _in(self, style: str, text: str) -> str:
        return f"{style}{text}{_PLAIN}" if self._colours else text

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
