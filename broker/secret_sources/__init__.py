"""Where the OAuth client is kept: the environment, a file, or Vault. The broker only reads it."""

from typing import assert_never

from broker.clock import Clock
from broker.secret_sources.local_sources import CredentialsFileSource, EnvironmentClientSource
from broker.secret_sources.source import ClientSource
from broker.settings import EnvironmentSource, FileSource, SecretSource, VaultSource


def open_source(config: SecretSource, clock: Clock) -> ClientSource:
    """Return the source that the settings name. It is not read yet."""
    match config:
        case EnvironmentSource():
            return EnvironmentClientSource(config)
        case FileSource():
            return CredentialsFileSource(config)
        case VaultSource():
            # hvac takes a quarter of all imports of `serve`, and most installations need it not.
            from broker.secret_sources.vault import VaultClientSource  # noqa: PLC0415

            return VaultClientSource(config, clock)
        case _:
            assert_never(config)
