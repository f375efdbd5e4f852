"""The real OpenBao of the tests, and one secret in it for each test to do with as it likes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

import hvac
import pytest

from broker.secret import Secret
from broker.settings import (
    SecretSetting,
    VaultAppRoleLogin,
    VaultLogin,
    VaultSource,
    VaultTokenLogin,
)
from devstack.openbao import AppRole, OpenBao


@pytest.fixture(scope="session")
def openbao() -> Iterator[OpenBao]:
    """A server that all tests share; a test that seals, pauses or stops one starts its own."""
    with OpenBao() as server:
        yield server


@pytest.fixture
def own_openbao() -> Iterator[OpenBao]:
    """A server to seal, pause and stop."""
    with OpenBao() as server:
        yield server


@contextmanager
def as_root(server: OpenBao) -> Iterator[Any]:
    """An hvac client that may do everything."""
    client = hvac.Client(url=server.address, token=server.root_token.reveal(), timeout=10)
    client.session.trust_env = False
    try:
        yield client
    finally:
        client.adapter.close()


@dataclass(frozen=True)
class VaultPlace:
    """One KV v2 path, as its operator sees it."""

    server: OpenBao
    path: str

    @classmethod
    def new(cls, server: OpenBao) -> "VaultPlace":
        return cls(server, f"token-broker/{uuid4().hex}")

    def put(self, client_secret: str, client_id: str = "the-client") -> int:
        """A complete new version."""
        return self.server.put_google_client(client_id, Secret(client_secret), path=self.path)

    def put_fields(self, fields: Mapping[str, object]) -> None:
        """A new version with whatever fields."""
        with as_root(self.server) as vault:
            vault.secrets.kv.v2.create_or_update_secret(path=self.path, secret=dict(fields))

    def delete_newest(self) -> None:
        with as_root(self.server) as vault:
            vault.secrets.kv.v2.delete_latest_version_of_secret(self.path)

    def create_approle(
        self,
        *,
        ttl: timedelta = timedelta(hours=1),
        max_ttl: timedelta = timedelta(hours=24),
        known: AppRole | None = None,
    ) -> AppRole:
        """A role for this path alone."""
        return self.server.create_approle(
            self.path.replace("/", "-"),
            path=self.path,
            token_ttl=ttl,
            token_max_ttl=max_ttl,
            known=known,
        )

    def create_token(
        self, *, ttl: timedelta = timedelta(hours=1), renewable: bool = True
    ) -> Secret:
        """A token for this path alone."""
        return self.server.create_token(path=self.path, ttl=ttl, renewable=renewable)

    def settings(
        self,
        login: VaultLogin,
        *,
        addresses: tuple[str, ...] | None = None,
        namespace: str | None = None,
        mount: str = "secret",
        path: str | None = None,
    ) -> VaultSource:
        """What `load_settings` would make of an environment that points here."""
        return VaultSource(
            addresses=addresses or (self.server.address,),
            namespace=namespace,
            login=login,
            kv_mount=mount,
            kv_path=path or self.path,
        )


def token_login(token: Secret) -> VaultTokenLogin:
    """`VAULT_AUTH=token` with the token as a value."""
    return VaultTokenLogin(SecretSetting("VAULT_TOKEN", value=token))


def approle_login(role: AppRole) -> VaultAppRoleLogin:
    """`VAULT_AUTH=approle` with both ids as values."""
    return VaultAppRoleLogin(
        role_id=SecretSetting("VAULT_ROLE_ID", value=role.role_id),
        secret_id=SecretSetting("VAULT_SECRET_ID", value=role.secret_id),
    )
