"""Gives every request an id that callers, logs and audit records share."""

import itertools
import os
import re
from collections.abc import Iterable

HEADER = b"x-request-id"
_ACCEPTABLE = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class RequestIds:
    """Takes the caller's own id when it is harmless, else makes one, unique to this process."""

    def __init__(self) -> None:
        self._prefix = os.urandom(6).hex()
        self._numbers = itertools.count(1)

    def new(self) -> str:
        """An id that nobody has had."""
        return f"{self._prefix}-{next(self._numbers):x}"

    def of(self, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """The id of a request with these headers."""
        for name, value in headers:
            if name == HEADER and _ACCEPTABLE.fullmatch(value):
                return value.decode("ascii")
        return self.new()
