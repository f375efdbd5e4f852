"""The guide's callers without keys, on a real API server: tokens accepted and refused."""

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from devstack.google_standin import GoogleStandin
from tests.chart.guide import KEYLESS, callers_file
from tests.chart.rendering import render
from tests.kube.cluster import Cluster, running_cluster
from tests.support.clock import ManualClock
from tests.support.world import open_world

pytestmark = pytest.mark.kube


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("kube")) as started:
        started.create_account("brokers", "token-broker")
        started.create_account("prod", "calendar-sync")
        yield started


async def test_a_service_account_is_a_caller(
    cluster: Cluster,
    tmp_path: Path,
    database_url: str,
    shared_standin: GoogleStandin,
) -> None:
    file = yaml.safe_load(callers_file(render(KEYLESS)))
    ((_, issuer),) = file["issuers"].items()
    (workload,) = (caller["workload"] for caller in file["callers"].values())
    # The commands of the guide that find these values.
    discovery = cluster.request("GET", "/.well-known/openid-configuration")
    workload["issuer"] = discovery["issuer"]
    # The pod's files at these paths, and the API server's address outside of a pod.
    ca_file, token_file = tmp_path / "ca.crt", tmp_path / "api"
    ca_file.write_text(cluster.ca, "ascii")
    token_file.write_text(cluster.account_token("brokers", "token-broker"), "utf-8")
    path = urlsplit(issuer["jwks_url"]).path
    reached = {
        "jwks_url": cluster.url + path,
        "ca_file": str(ca_file),
        "token_file": str(token_file),
    }
    assert issuer.keys() == reached.keys()
    clock = ManualClock(datetime.now(UTC))
    shared_standin.reset(clock=clock)
    async with open_world(
        tmp_path,
        database_url,
        shared_standin,
        clock,
        callers=file["callers"],
        issuers={workload["issuer"]: reached},
    ) as world:

        async def request_token(token: str) -> tuple[int, str]:
            answer = await world.internal.get(
                "/v1/users/42/token", headers={"Authorization": f"Bearer {token}"}
            )
            return answer.status_code, json.loads(answer.content)["code"]

        audience = workload["audience"]
        known = cluster.account_token("prod", "calendar-sync", audience)
        assert await request_token(known) == (404, "grant_not_found")
        unknown = (401, "unauthenticated")
        assert (
            await request_token(cluster.account_token("prod", "calendar-sync", "another"))
            == unknown
        )
        assert await request_token(cluster.account_token("prod", "calendar-sync")) == unknown
        assert (
            await request_token(cluster.account_token("brokers", "token-broker", audience))
            == unknown
        )


def test_the_api_server_refuses_its_keys_without_a_token(cluster: Cluster) -> None:
    """So the guide's `token_file` is necessary."""
    context = ssl._create_unverified_context()
    with pytest.raises(urllib.error.HTTPError, match=r"40[13]"):
        urllib.request.urlopen(cluster.url + "/openid/v1/jwks", timeout=30, context=context)
