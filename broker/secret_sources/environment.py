"""The OAuth client from two settings, or from the files that `*_FILE` names, read each time."""

from broker.secret_sources.client import OAuthClient
from broker.secret_sources.local import LocalSource
from broker.secret_sources.source import SourceMisconfigured, checked_client
from broker.settings import EnvironmentSource, SecretSetting, UnreadableSecretError


class EnvironmentClientSource(LocalSource):
    """A value in the environment never changes; one in a file may be rotated on disk."""

    name = "env"

    def __init__(self, config: EnvironmentSource) -> None:
        super().__init__()
        self._config = config

    def _read(self) -> OAuthClient:
        client = checked_client(
            {
                "client_id": _text_of(self._config.client_id),
                "client_secret": _text_of(self._config.client_secret),
            },
            version=self._changes.next_version,
            place="the environment",
            remedy="set GOOGLE_CLIENT_ID and GOOGLE_CLIENT_SECRET as Google's console shows them",
        )
        return self._changes.numbered(client)


def _text_of(setting: SecretSetting) -> str:
    try:
        return setting.read().reveal()
    except UnreadableSecretError as error:
        problem = str(error)
    # Outside of `except`: a file that is not text would be chained along, bytes and all.
    raise SourceMisconfigured(problem)
