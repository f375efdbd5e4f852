"""The Vault module, without its provider, which is in no package registry.

Its policies are loaded into a real OpenBao and tested there. A real Terraform checks its variables.
The resources are only parsed.
"""

from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import Any
from uuid import uuid4

import hvac
import pytest

from devstack.openbao import OpenBao
from tests.support.openbao import as_root
from tests.support.terraform import MODULES, Workspace

MODULE = MODULES / "vault"
PLACE = {"kv_mount": "secret", "kv_path": "token-broker/google"}
KEY = {"transit_mount": "transit", "transit_key": "token-broker"}


def _rendered(policy: str, values: dict[str, str]) -> str:
    """Render it as `templatefile` does: the templates have plain `${name}` only."""
    return Template((MODULE / "policies" / policy).read_text(encoding="utf-8")).substitute(values)


@pytest.fixture
def vault(own_openbao: OpenBao) -> Iterator[Any]:
    """An operator's client of a server with both secrets engines enabled."""
    with as_root(own_openbao) as client:
        for path in (PLACE["kv_path"], f"{PLACE['kv_path']}-of-another"):
            client.secrets.kv.v2.create_or_update_secret(path=path, secret={"client_id": "x"})
        client.sys.enable_secrets_engine("transit")
        for key in (KEY["transit_key"], "of-another"):
            client.secrets.transit.create_key(key)
        yield client


@pytest.fixture
def broker(vault: Any) -> Iterator[Any]:
    """A client with both of the module's policies, and no other except `default`."""
    names = []
    for policy, values in (("read-client", PLACE), ("use-transit-key", KEY)):
        names.append(f"{policy}-{uuid4().hex}")
        vault.sys.create_or_update_policy(names[-1], _rendered(f"{policy}.hcl.tftpl", values))
    token = vault.auth.token.create(policies=names)["auth"]["client_token"]
    client = hvac.Client(url=vault.url, token=token, timeout=10)
    client.session.trust_env = False
    yield client
    client.adapter.close()


def test_vault_policy_reads_the_client_and_nothing_else(broker: Any) -> None:
    kv = broker.secrets.kv.v2
    read = kv.read_secret_version(path=PLACE["kv_path"], raise_on_deleted_version=True)
    assert read["data"]["data"] == {"client_id": "x"}
    with pytest.raises(hvac.exceptions.Forbidden):
        kv.read_secret_version(path=f"{PLACE['kv_path']}-of-another", raise_on_deleted_version=True)
    with pytest.raises(hvac.exceptions.Forbidden):
        kv.create_or_update_secret(path=PLACE["kv_path"], secret={"client_id": "y"})
    with pytest.raises(hvac.exceptions.Forbidden):
        kv.list_secrets(path="token-broker")


def test_vault_policy_uses_the_transit_key_and_cannot_change_it(broker: Any) -> None:
    transit, key = broker.secrets.transit, KEY["transit_key"]
    sealed = transit.encrypt_data(key, plaintext="aGVsbG8=")["data"]["ciphertext"]
    again = transit.rewrap_data(key, ciphertext=sealed)["data"]["ciphertext"]
    assert transit.decrypt_data(key, ciphertext=again)["data"]["plaintext"] == "aGVsbG8="
    assert transit.read_key(key)["data"]["latest_version"] == 1
    with pytest.raises(hvac.exceptions.Forbidden):
        transit.rotate_key(key)
    with pytest.raises(hvac.exceptions.Forbidden):
        transit.update_key_configuration(key, deletion_allowed=True)
    with pytest.raises(hvac.exceptions.Forbidden):
        transit.encrypt_data("of-another", plaintext="aGVsbG8=")


def test_vault_variables_refuse_invalid_values(tmp_path: Path) -> None:
    workspace = Workspace.new(tmp_path / "root")
    (workspace.folder / "tests").mkdir()
    (workspace.folder / "variables.tf").write_bytes((MODULE / "variables.tf").read_bytes())
    # Without the resources there is nothing to mock, so no provider is needed.
    test = (MODULE / "tests/variables.tftest.hcl").read_text(encoding="utf-8")
    (workspace.folder / "tests/variables.tftest.hcl").write_text(
        test.replace('mock_provider "vault" {}\n', ""), encoding="utf-8"
    )
    workspace.initialise()
    assert "3 passed, 0 failed" in workspace.succeed("test", "-no-color")
