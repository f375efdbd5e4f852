"""The requests that the stand-in received, and the secrets that it issued, for tests.

Secrets in a request are kept as fingerprints. Issued secrets are kept in full, because leak tests
search for them.
"""

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

_SECRET_PARAMETERS = frozenset(
    {"client_secret", "code", "code_verifier", "refresh_token", "token", "access_token"}
)


def fingerprint(secret: str) -> str:
    """Return what replaces a secret in a recorded request; equal secrets stay recognisable."""
    return "sha256:" + hashlib.sha256(secret.encode()).hexdigest()[:16]


@dataclass
class RecordedRequest:
    """One request. Times are of `time.monotonic()`; `status` is None without a complete answer."""

    endpoint: str
    method: str
    parameters: dict[str, str]
    client_id: str | None
    client_auth: str | None
    """`client_secret_basic`, `client_secret_post` or None."""
    account: str | None
    """The `sub` of the account, if it is known."""
    grant_type: str | None
    started: float
    finished: float | None = None
    status: int | None = None
    fault: str | None = None


class RequestLog:
    """All requests since the last reset, in order of arrival."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._entries: list[RecordedRequest] = []

    def __iter__(self) -> Iterator[RecordedRequest]:
        with self._lock:
            return iter(list(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def to(self, endpoint: str, *, grant_type: str | None = None) -> list[RecordedRequest]:
        """Return the requests to an endpoint, such as token, revoke or userinfo."""
        return [
            entry
            for entry in self
            if entry.endpoint == endpoint and grant_type in (None, entry.grant_type)
        ]

    def count(self, endpoint: str, *, grant_type: str | None = None) -> int:
        return len(self.to(endpoint, grant_type=grant_type))

    def counts(self) -> dict[str, int]:
        return dict(Counter(entry.endpoint for entry in self))

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()

    def as_json(self) -> list[dict[str, Any]]:
        return [asdict(entry) for entry in self]

    def add(self, entry: RecordedRequest) -> RecordedRequest:
        with self._lock:
            self._entries.append(entry)
            self._changed.notify_all()
        return entry

    def finish(self, entry: RecordedRequest, status: int | None) -> None:
        with self._lock:
            entry.finished, entry.status = monotonic(), status
            self._changed.notify_all()

    def wait_until(
        self,
        endpoint: str,
        enough: Callable[[list[RecordedRequest]], bool],
        *,
        timeout: float = 10,
    ) -> None:
        """Block until the requests to an endpoint satisfy `enough`. Raises `TimeoutError`."""

        def satisfied() -> bool:
            return enough([e for e in self._entries if e.endpoint == endpoint])

        with self._lock:
            if not self._changed.wait_for(satisfied, timeout):
                raise TimeoutError(f"the requests to {endpoint} did not become as expected")

    def wait_for(self, endpoint: str, *, count: int = 1, timeout: float = 10) -> None:
        """Block until this many requests to an endpoint have ended. Raises `TimeoutError`."""

        def enough(entries: list[RecordedRequest]) -> bool:
            return len([entry for entry in entries if entry.finished]) >= count

        self.wait_until(endpoint, enough, timeout=timeout)


def without_secrets(parameters: Mapping[str, str]) -> dict[str, str]:
    """Replace each secret by its fingerprint."""
    return {
        name: fingerprint(value) if name in _SECRET_PARAMETERS else value
        for name, value in parameters.items()
    }


def monotonic() -> float:
    """Return the time of the request log's clock."""
    return time.monotonic()


@dataclass
class Issued:
    """Every secret that was issued, whether it is still valid or not."""

    codes: list[str] = field(default_factory=list)
    access_tokens: list[str] = field(default_factory=list)
    refresh_tokens: list[str] = field(default_factory=list)
    id_tokens: list[str] = field(default_factory=list)

    def all(self) -> list[str]:
        return [*self.codes, *self.access_tokens, *self.refresh_tokens, *self.id_tokens]

    def clear(self) -> None:
        for kept in (self.codes, self.access_tokens, self.refresh_tokens, self.id_tokens):
            kept.clear()
