"""`VAULT_AUTH=kubernetes` on a real OpenBao, which has each token reviewed by an API server.

It is a real one with `make kube`, and a stand-in otherwise.
"""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from broker.clock import SystemClock
from broker.secret import Secret
from broker.secret_sources.source import SourceMisconfigured
from broker.secret_sources.vault import VaultClientSource
from broker.secret_sources.vault_api import VaultApi
from broker.secret_sources.vault_token import TokenKeeper
from broker.settings import VaultJwtLogin
from devstack.openbao import OpenBao
from tests.kube.cluster import running_cluster
from tests.support.clock import ManualClock
from tests.support.openbao import VaultPlace, as_root
from tests.support.projected_tokens import AUDIENCE, kubernetes_role
from tests.support.token_review import Kubernetes, RealKubernetes, stub_kubernetes, trust


@pytest.fixture(scope="module", params=["stand-in", pytest.param("real", marks=pytest.mark.kube)])
def kubernetes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Kubernetes]:
    folder = tmp_path_factory.mktemp("kubernetes")
    if request.param == "real":
        with running_cluster(folder) as cluster:
            yield RealKubernetes(cluster)
    else:
        with stub_kubernetes(folder) as stub:
            yield stub


@pytest.fixture(scope="module")
def server(kubernetes: Kubernetes) -> Iterator[OpenBao]:
    with OpenBao() as started:
        trust(started, kubernetes)
        yield started


@pytest.fixture
def place(server: OpenBao) -> VaultPlace:
    place = VaultPlace.new(server)
    place.put("the-secret")
    return place


@pytest.fixture
def account(kubernetes: Kubernetes) -> str:
    """A new service account."""
    name = f"broker-{uuid4().hex}"
    kubernetes.create_account(name)
    return name


@pytest.fixture
def file(kubernetes: Kubernetes, account: str, tmp_path: Path) -> Path:
    """A file with a valid token."""
    return written(tmp_path / "token", kubernetes.issue(account, AUDIENCE))


def written(file: Path, token: str) -> Path:
    file.write_text(token)
    return file


def source_of(place: VaultPlace, role: str, file: Path) -> VaultClientSource:
    login = VaultJwtLogin("kubernetes", role, file)
    return VaultClientSource(place.settings(login), SystemClock())


async def refusal_of(source: VaultClientSource) -> str:
    with pytest.raises(SourceMisconfigured) as caught:
        await source.read()
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def test_a_reviewed_token_reads_the_client(
    place: VaultPlace, account: str, file: Path
) -> None:
    source = source_of(place, kubernetes_role(place, account), file)
    assert (await source.read()).client_secret.reveal() == "the-secret"
    await source.ping()


async def test_the_file_is_read_at_each_login(
    kubernetes: Kubernetes, place: VaultPlace, account: str, file: Path
) -> None:
    clock = ManualClock()
    login = VaultJwtLogin("kubernetes", kubernetes_role(place, account), file)
    keeper = TokenKeeper(VaultApi(place.server.address, None), login, clock)
    seen = {uid_of(place, await keeper.token())}
    kubernetes.delete_account(account)
    kubernetes.create_account(account)
    written(file, kubernetes.issue(account, AUDIENCE))
    clock.advance(timedelta(hours=2))
    seen.add(uid_of(place, await keeper.token()))
    assert len(seen) == 2


def uid_of(place: VaultPlace, token: Secret) -> str:
    """The uid of the service account that logged in."""
    with as_root(place.server) as vault:
        data = vault.auth.token.lookup(token.reveal())["data"]
    return str(data["meta"]["service_account_uid"])


async def test_a_token_for_another_audience_is_refused(
    kubernetes: Kubernetes, place: VaultPlace, account: str, file: Path
) -> None:
    written(file, kubernetes.issue(account, "api"))
    message = await refusal_of(source_of(place, kubernetes_role(place, account), file))
    assert "at auth/kubernetes to a token with sub" in message
    assert f"sub 'system:serviceaccount:brokers:{account}', aud ['api'], iss 'https://" in message
    assert "that it can ask that cluster for a TokenReview" in message


async def test_another_service_accounts_token_is_refused(
    place: VaultPlace, account: str, file: Path
) -> None:
    message = await refusal_of(source_of(place, kubernetes_role(place, "other"), file))
    assert f"sub 'system:serviceaccount:brokers:{account}'" in message


async def test_a_deleted_service_accounts_token_is_refused(
    kubernetes: Kubernetes, place: VaultPlace, account: str, file: Path
) -> None:
    kubernetes.delete_account(account)
    message = await refusal_of(source_of(place, kubernetes_role(place, account), file))
    assert f"sub 'system:serviceaccount:brokers:{account}'" in message


async def test_a_misspelt_role_is_named(place: VaultPlace, file: Path) -> None:
    message = await refusal_of(source_of(place, "tokenbroker", file))
    assert "has no role 'tokenbroker' at auth/kubernetes" in message


async def test_a_vault_that_may_not_review_tokens_is_reported(
    kubernetes: Kubernetes, own_openbao: OpenBao, account: str, file: Path
) -> None:
    trust(own_openbao, kubernetes, token_reviewer_jwt="of nobody")
    place = VaultPlace.new(own_openbao)
    source = source_of(place, kubernetes_role(place, account), file)
    assert "TokenReview" in await refusal_of(source)

    trust(own_openbao, kubernetes)
    place.put("the-secret")
    assert (await source.read()).client_secret.reveal() == "the-secret"


async def test_the_token_is_for_one_secret_only(
    place: VaultPlace, account: str, file: Path
) -> None:
    role = kubernetes_role(place, account)
    message = await refusal_of(source_of(VaultPlace.new(place.server), role, file))
    assert "give it the policy" in message
    with as_root(place.server) as vault:
        policies = vault.auth.kubernetes.read_role(role)["token_policies"]
    assert policies == [role]
