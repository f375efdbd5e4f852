"""The sources on this machine: the environment, and the `credentials.json` of Google's console.

Both are read again each time, so that a secret rotated on disk is noticed.
"""

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from broker.secret_sources.source import OAuthClient, SourceMisconfigured, client_from_fields
from broker.settings import (
    ConfiguredSecret,
    EnvironmentSource,
    FileSource,
    UnreadableSecretError,
)

_MAX_BYTES = 64 * 1024
"""Google's file is under 1 KB; anything this large is another file."""

_DOWNLOAD = (
    "in Google's console, open the OAuth client of type Web application "
    "(APIs & Services, Credentials) and choose Download JSON"
)
_OTHER_KINDS = {
    "service_account": "a service account's key",
    "authorized_user": "one user's saved credentials (`gcloud auth application-default login`)",
    "external_account": "a workload identity federation configuration",
    "external_account_authorized_user": "one user's workforce identity credentials",
    "impersonated_service_account": "a service account impersonation configuration",
}
"""Google's other JSON files that look similar, by their `type`."""


class LocalSource(ABC):
    """A `ClientSource` that reads in a thread, holds nothing open, and numbers the changes."""

    def __init__(self) -> None:
        self._last: OAuthClient | None = None

    async def read(self) -> OAuthClient:
        return await asyncio.to_thread(self.read_blocking)

    async def ping(self) -> None:
        await self.read()

    async def maintain(self) -> None:  # noqa: B027  (empty, not abstract)
        """Nothing is ever due."""

    async def aclose(self) -> None:  # noqa: B027
        """Nothing is held open."""

    def read_blocking(self) -> OAuthClient:
        """Return the current client, with the last version if nothing has changed.

        Raises `SourceMisconfigured`.
        """
        client = self._read(self._last.version + 1 if self._last else 1)
        if self._last is None or not client.has_credentials_of(self._last):
            self._last = client
        return self._last

    @abstractmethod
    def _read(self, version: int) -> OAuthClient:
        """Return the current client as this version. Raises `SourceMisconfigured`."""


class EnvironmentClientSource(LocalSource):
    """`GOOGLE_CLIENT_ID` and `GOOGLE_CLIENT_SECRET`: values, or the files that `*_FILE` name."""

    name = "env"

    def __init__(self, config: EnvironmentSource) -> None:
        super().__init__()
        self._config = config

    def _read(self, version: int) -> OAuthClient:
        return client_from_fields(
            {
                "client_id": _secret_text(self._config.client_id),
                "client_secret": _secret_text(self._config.client_secret),
            },
            version=version,
            place="the environment",
            remedy="set GOOGLE_CLIENT_ID and GOOGLE_CLIENT_SECRET as Google's console shows them",
        )


def _secret_text(secret: ConfiguredSecret) -> str:
    try:
        return secret.read().reveal()
    except UnreadableSecretError as error:
        problem = str(error)
    # Outside of `except`: a UnicodeDecodeError would be chained, and it holds the file's bytes.
    raise SourceMisconfigured(problem)


class CredentialsFileSource(LocalSource):
    """`GOOGLE_CREDENTIALS_FILE`, as Google's console downloads it."""

    name = "file"

    def __init__(self, config: FileSource) -> None:
        super().__init__()
        self._path = config.path

    def _read(self, version: int) -> OAuthClient:
        document = _parse(_file_text(self._path), self._path)
        return client_from_fields(
            _client_object(document, self._path),
            version=version,
            place=f"GOOGLE_CREDENTIALS_FILE: {self._path}",
            remedy=_DOWNLOAD,
        )


def _file_text(path: Path) -> str:
    # The errors are raised outside of `except`: a UnicodeDecodeError holds the file's bytes.
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) <= _MAX_BYTES:
            return content.decode("utf-8-sig")
        problem = f"{path} is not a credentials.json, but something much larger"
    except OSError as error:
        problem = f"can't read {path}: {error.strerror or type(error).__name__}"
    except UnicodeDecodeError:
        problem = f"{path} is not text"
    raise SourceMisconfigured(f"GOOGLE_CREDENTIALS_FILE: {problem}")


def _parse(text: str, path: Path) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
    except ValueError:
        place = "a number is too long"
    except RecursionError:
        place = "nested too deeply"
    # Outside of `except`, because a JSONDecodeError holds the file's text.
    raise SourceMisconfigured(f"GOOGLE_CREDENTIALS_FILE: {path} is not JSON ({place}): {_DOWNLOAD}")


def _client_object(document: object, path: Path) -> Mapping[str, object]:
    """Return the object `web` or `installed`, which describes the client."""
    if isinstance(document, dict):
        for kind in ("web", "installed"):
            if isinstance(document.get(kind), dict):
                part: Mapping[str, object] = document[kind]
                return part
    raise SourceMisconfigured(
        f"GOOGLE_CREDENTIALS_FILE: {path} is {_kind_of(document)}, "
        f"not the file of an OAuth client: {_DOWNLOAD}"
    )


def _kind_of(document: object) -> str:
    if not isinstance(document, dict):
        return "JSON without an object in it"
    kind = document.get("type")
    if isinstance(kind, str) and kind in _OTHER_KINDS:
        return _OTHER_KINDS[kind]
    if "refresh_token" in document or "access_token" in document:
        return "one user's saved token"
    return "JSON with neither `web` nor `installed`"
