"""Request ids, which responses, logs and audit records share."""

import itertools
import os
import re
from collections.abc import Iterable

HEADER = b"x-request-id"
_is_acceptable = re.compile(rb"[A-Za-z0-9._-]{1,64}").fullmatch


class RequestIds:
    """Accepts a caller's id of 1 to 64 harmless characters, else creates a unique one."""

    def __init__(self) -> None:
        self._prefix = os.urandom(6).hex().encode()
        self._numbers = itertools.count(1)

    def of(self, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """Return the id of a request with these headers."""
        own = next((value for name, value in headers if name == HEADER), None)
        return self.choose(own).decode("ascii")

    def choose(self, own: bytes | None) -> bytes:
        """Return the caller's id if it is acceptable, else a new one."""
        if own is not None and _is_acceptable(own):
            return own
        return b"%b-%x" % (self._prefix, next(self._numbers))
