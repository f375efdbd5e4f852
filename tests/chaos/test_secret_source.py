"""OpenBao sealed and unsealed, while the secret of the OAuth client is rotated or not."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.secret import Secret
from devstack.google_standin import GoogleStandin
from devstack.openbao import OpenBao
from devstack.postgres import EmbeddedPostgres
from tests.chaos.fleet import TOKEN_LIFETIME, Fleet, running_fleet
from tests.chaos.load import load_on
from tests.support.processes import wait_until
from tests.support.world import CLIENT_ID, CLIENT_SECRET

pytestmark = pytest.mark.chaos


@pytest.fixture
def fleet(
    tmp_path: Path,
    postgres: EmbeddedPostgres,
    shared_database: str,
    google: GoogleStandin,
    own_openbao: OpenBao,
) -> Iterator[Fleet]:
    """Two replicas; their OAuth client is in an OpenBao that the test seals."""
    google.reset()
    own_openbao.put_google_client(CLIENT_ID, Secret(CLIENT_SECRET))
    role = own_openbao.create_approle()
    source = {
        "GOOGLE_CLIENT_ID": "",
        "GOOGLE_CLIENT_SECRET": "",
        "BROKER_SECRET_SOURCE": "vault",
        "VAULT_ADDR": own_openbao.address,
        "VAULT_AUTH": "approle",
        "VAULT_ROLE_ID": role.role_id.reveal(),
        "VAULT_SECRET_ID": role.secret_id.reveal(),
    }
    with running_fleet(
        tmp_path, postgres, shared_database, google, replicas=2, settings=source
    ) as fleet:
        fleet.connect(6)
        yield fleet


def test_openbao_is_sealed_and_unsealed(fleet: Fleet, own_openbao: OpenBao) -> None:
    rotated = "GOCSPX-rotated-in-a-fault"
    with load_on(fleet) as record:
        own_openbao.seal()
        time.sleep(TOKEN_LIFETIME + 1)
        assert fleet.replicas[0].readiness().json()["status"] == "degraded"
        own_openbao.unseal()
        fleet.assert_recovered()
        wait_until(
            "all replicas are ready again",
            lambda: all(r.readiness().json()["status"] == "ready" for r in fleet.replicas),
        )
    record.assert_sound()
    with load_on(fleet) as record:
        own_openbao.put_google_client(CLIENT_ID, Secret(rotated))
        fleet.google.change_client_secret(CLIENT_ID, rotated)
        fleet.assert_recovered()
    record.assert_sound()


def test_google_refuses_the_client_while_openbao_is_sealed(
    fleet: Fleet, own_openbao: OpenBao
) -> None:
    rotated = "GOCSPX-rotated-behind-a-seal"
    with load_on(fleet) as record:
        own_openbao.put_google_client(CLIENT_ID, Secret(rotated))
        own_openbao.seal()
        fleet.google.change_client_secret(CLIENT_ID, rotated)
        time.sleep(TOKEN_LIFETIME + 1)
        own_openbao.unseal()
        fleet.assert_recovered(within=20)
    record.assert_sound(allowed={"client_misconfigured", "google_unavailable"})
