"""The OAuth client from the `credentials.json` that Google's console downloads.

Other JSON files that Google hands out look alike; each is refused by its own name.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from broker.secret_sources.client import OAuthClient
from broker.secret_sources.local import LocalSource
from broker.secret_sources.source import SourceMisconfigured, checked_client
from broker.settings import FileSource

_LARGEST = 64 * 1024
"""Google's file is under 1 KB; anything this large is another file."""

_REMEDY = (
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


class CredentialsFileSource(LocalSource):
    """Reads the file anew each time, so that a file exchanged on disk is noticed."""

    name = "file"

    def __init__(self, config: FileSource) -> None:
        super().__init__()
        self._path = config.path

    def _read(self) -> OAuthClient:
        document = _parsed(_text_of(self._path), self._path)
        client = checked_client(
            _client_object(document, self._path),
            version=self._changes.next_version,
            place=f"GOOGLE_CREDENTIALS_FILE: {self._path}",
            remedy=_REMEDY,
        )
        return self._changes.numbered(client)


def _text_of(path: Path) -> str:
    # The errors are raised outside of `except`: a UnicodeDecodeError carries the whole file along.
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
        if len(content) <= _LARGEST:
            return content.decode("utf-8-sig")
        problem = f"{path} is not a credentials.json, but something much larger"
    except OSError as error:
        problem = f"can't read {path}: {error.strerror or type(error).__name__}"
    except UnicodeDecodeError:
        problem = f"{path} is not text"
    raise SourceMisconfigured(f"GOOGLE_CREDENTIALS_FILE: {problem}")


def _parsed(text: str, path: Path) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
    except ValueError:
        place = "a number is too long"
    except RecursionError:
        place = "nested too deeply"
    # Outside of `except`, because a JSONDecodeError carries the whole file along.
    raise SourceMisconfigured(f"GOOGLE_CREDENTIALS_FILE: {path} is not JSON ({place}): {_REMEDY}")


def _client_object(document: object, path: Path) -> Mapping[str, object]:
    """The part of the file that describes the client: `web` or `installed`."""
    if isinstance(document, dict):
        for kind in ("web", "installed"):
            if isinstance(document.get(kind), dict):
                part: Mapping[str, object] = document[kind]
                return part
    raise SourceMisconfigured(
        f"GOOGLE_CREDENTIALS_FILE: {path} is {_kind_of(document)}, "
        f"not the file of an OAuth client: {_REMEDY}"
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
