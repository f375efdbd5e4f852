"""Where the OAuth client comes from: the environment, a file, or Vault. It is only ever read."""

from typing import assert_never

from broker.clock import Clock
from broker.secret_sources.credentials_file import CredentialsFileSource
from broker.secret_sources.environment import EnvironmentClientSource
from broker.secret_sources.source import ClientSource
from broker.settings import EnvironmentSource, FileSource, SecretSource, VaultSource


def open_source(config: SecretSource, clock: Clock) -> ClientSource:
    """The source that the settings name. Nothing is read yet."""
    match config:
        case EnvironmentSource():
            return EnvironmentClientSource(config)
        case FileSource():
            return CredentialsFileSource(config)
        case VaultSource():
            # Its client library takes a quarter of all that `serve` imports; most need it not.
            from broker.secret_sources.vault import VaultClientSource  # noqa: PLC0415

            return VaultClientSource(config, clock)
        case _:
            assert_never(config)
