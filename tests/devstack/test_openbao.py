"""The OpenBao of `make run` and of the tests."""

from pathlib import Path

import hvac
import hvac.exceptions
import psutil
import pytest

from broker.secret import Secret
from devstack.openbao import OpenBao, OpenBaoError


def test_a_taken_port_is_reported(openbao: OpenBao) -> None:
    port = int(openbao.address.rpartition(":")[2])
    with pytest.raises(OpenBaoError, match="address already in use"):
        OpenBao().start(port)


def test_stopping_ends_the_process_and_can_be_repeated() -> None:
    server = OpenBao().start()
    pid = server.pid
    assert pid is not None
    server.stop()
    server.stop()
    assert not psutil.pid_exists(pid)


def test_the_root_token_is_not_an_argument_of_the_process(openbao: OpenBao) -> None:
    token = openbao.root_token.reveal()
    assert all(token not in argument for argument in psutil.Process(openbao.pid).cmdline())


def test_it_writes_only_into_its_own_home(tmp_path: Path) -> None:
    with OpenBao(home=tmp_path / "home") as server:
        server.put_google_client("a", Secret("b"))
        assert server.log_path.parent == tmp_path / "home"
        assert server.log_path.stat().st_mode & 0o077 == 0


def test_the_approle_may_only_read_the_client(openbao: OpenBao) -> None:
    openbao.put_google_client("an-id", Secret("a-secret"), path="own/google")
    openbao.put_google_client("another", Secret("another"), path="own/other")
    role = openbao.create_approle("reader", path="own/google")
    client = hvac.Client(url=openbao.address, token="")
    client.session.trust_env = False
    client.auth.approle.login(role.role_id.reveal(), role.secret_id.reveal())
    read = client.secrets.kv.v2.read_secret_version

    answer = read("own/google", raise_on_deleted_version=True)
    assert answer["data"]["data"] == {"client_id": "an-id", "client_secret": "a-secret"}
    with pytest.raises(hvac.exceptions.Forbidden):
        read("own/other", raise_on_deleted_version=True)
    with pytest.raises(hvac.exceptions.Forbidden):
        client.secrets.kv.v2.create_or_update_secret("own/google", {"client_id": "x"})
