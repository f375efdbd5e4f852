"""The real OpenBao of the tests, with a secret per test."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

import hvac
import hvac.exceptions
import pytest

from broker.secret import Secret
from broker.settings import (
    ConfiguredSecret,
    VaultAppRoleLogin,
    VaultLogin,
    VaultSource,
    VaultTokenLogin,
)
from devstack.openbao import AppRole, OpenBao
from tests.support.processes import wait_until


@pytest.fixture(scope="session")
def openbao() -> Iterator[OpenBao]:
    """A server that all tests share; tests that seal, pause or stop a server use `own_openbao`."""
    with OpenBao() as server:
        yield server


@pytest.fixture
def own_openbao() -> Iterator[OpenBao]:
    """A server that a test may seal, pause and stop."""
    with OpenBao() as server:
        yield server


@contextmanager
def as_root(server: OpenBao) -> Iterator[Any]:
    """Yield an hvac client with the root token."""
    client = hvac.Client(url=server.address, token=server.root_token.reveal(), timeout=10)
    client.session.trust_env = False
    try:
        yield client
    finally:
        client.adapter.close()


def enable_kv_in_namespace(vault: Any, name: str) -> None:
    """Create a namespace with KV v2 at `secret/`, and switch the client to it."""
    vault.adapter.post(f"/v1/sys/namespaces/{name}", json={})
    vault.adapter.namespace = name
    vault.sys.enable_secrets_engine("kv", path="secret", options={"version": "2"})

    def is_upgraded() -> bool:
        """False while a new KV v2 refuses every request with 400."""
        try:
            vault.secrets.kv.v2.read_configuration()
        except hvac.exceptions.InvalidRequest:
            return False
        return True

    wait_until("KV v2 is upgraded", is_upgraded, within=30)


@dataclass(frozen=True)
class VaultPlace:
    """A secret's KV v2 path, with what an operator does to it."""

    server: OpenBao
    path: str

    @classmethod
    def new(cls, server: OpenBao) -> "VaultPlace":
        return cls(server, f"token-broker/{uuid4().hex}")

    def put(self, client_secret: str, client_id: str = "the-client") -> int:
        """Write a new, complete version; return its number."""
        return self.server.put_google_client(client_id, Secret(client_secret), path=self.path)

    def put_fields(self, fields: Mapping[str, object]) -> None:
        """Write a new version with these fields."""
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
        """Create a role that may read only this path."""
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
        """Create a token that may read only this path."""
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
        """Return the settings of a broker that reads this path."""
        return VaultSource(
            addresses=addresses or (self.server.address,),
            namespace=namespace,
            login=login,
            kv_mount=mount,
            kv_path=path or self.path,
        )


def token_login(token: Secret) -> VaultTokenLogin:
    """Return the settings of `VAULT_AUTH=token` with the token as a value."""
    return VaultTokenLogin(ConfiguredSecret("VAULT_TOKEN", value=token))


def approle_login(role: AppRole) -> VaultAppRoleLogin:
    """Return the settings of `VAULT_AUTH=approle` with both ids as values."""
    return VaultAppRoleLogin(
        role_id=ConfiguredSecret("VAULT_ROLE_ID", value=role.role_id),
        secret_id=ConfiguredSecret("VAULT_SECRET_ID", value=role.secret_id),
    )
