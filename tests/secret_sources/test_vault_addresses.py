"""Several addresses in VAULT_ADDR, each a separate cluster: two real OpenBaos."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import pytest

from broker.clock import SystemClock
from broker.secret_sources.source import SourceMisconfigured, SourceUnavailable
from broker.secret_sources.vault import VaultClientSource
from broker.settings import VaultLogin, VaultSource
from devstack.openbao import AppRole, OpenBao
from tests.support.clock import ManualClock
from tests.support.issuer import OidcIssuer
from tests.support.openbao import VaultPlace, approle_login, token_login
from tests.support.projected_tokens import HOUR, ProjectedToken, jwt_role, trust_by_jwks
from tests.support.recording_proxy import RecordingProxy, recording_proxy

PATH = "token-broker/google"


@dataclass(frozen=True)
class Region:
    """One cluster, and the proxy through which the broker reaches it."""

    place: VaultPlace
    way: RecordingProxy


@pytest.fixture(scope="module")
def servers(jwt_issuer: OidcIssuer) -> Iterator[list[OpenBao]]:
    with OpenBao() as first, OpenBao() as second:
        for server in (first, second):
            trust_by_jwks(server, jwt_issuer)
        yield [first, second]


@pytest.fixture
def regions(servers: list[OpenBao]) -> Iterator[list[Region]]:
    """The same client in both clusters, as version 1 in one and 2 in the other."""
    first, second = (VaultPlace(server, VaultPlace.new(server).path) for server in servers)
    second = VaultPlace(second.server, first.path)
    first.put("the-secret")
    second.put("an old one")
    second.put("the-secret")
    with recording_proxy(servers[0].address) as one, recording_proxy(servers[1].address) as other:
        yield [Region(first, one), Region(second, other)]


def settings_of(regions: list[Region], login: VaultLogin) -> VaultSource:
    addresses = tuple(region.way.address for region in regions)
    return regions[0].place.settings(login, addresses=addresses)


def a_jwt_login(regions: list[Region], projected: ProjectedToken) -> VaultLogin:
    first, second = (jwt_role(region.place) for region in regions)
    assert first == second
    return projected.login(first)


def an_approle_login(regions: list[Region], projected: ProjectedToken) -> VaultLogin:
    role: AppRole = regions[0].place.create_approle()
    regions[1].place.create_approle(known=role)
    return approle_login(role)


@pytest.mark.parametrize("login", [a_jwt_login, an_approle_login], ids=["jwt", "approle"])
async def test_no_token_of_one_cluster_is_sent_to_another(
    regions: list[Region], written: ProjectedToken, login: type
) -> None:
    clock = ManualClock()
    source = VaultClientSource(settings_of(regions, login(regions, written)), clock)
    first, second = regions[0].way, regions[1].way

    assert (await source.read()).version == 1
    assert not second.requests

    first.is_down = True
    assert (await source.read()).version == 2
    assert (await source.read()).version == 2
    first.is_down = False
    clock.advance(timedelta(minutes=41))
    await source.maintain()
    assert (await source.read()).version == 1

    assert len(set(first.issued)) == 1
    assert len(set(second.issued)) == 1
    assert all(first.has_seen(token) for token in first.issued)
    assert all(second.has_seen(token) for token in second.issued)
    assert not any(second.has_seen(token) for token in first.issued)
    assert not any(first.has_seen(token) for token in second.issued)


async def test_the_token_of_the_second_cluster_is_kept(
    regions: list[Region], written: ProjectedToken
) -> None:
    clock = ManualClock()
    source = VaultClientSource(settings_of(regions, a_jwt_login(regions, written)), clock)
    first, second = regions[0].way, regions[1].way
    first.is_down = True
    await source.read()
    first.is_down = False
    await source.read()
    clock.advance(timedelta(minutes=41))
    await source.maintain()
    clock.advance(timedelta(minutes=41))

    first.is_down = True
    written.file.unlink()
    assert (await source.read()).version == 2
    assert len(set(second.issued)) == 1


async def test_one_address_is_maintained_while_another_is_unavailable(
    regions: list[Region], written: ProjectedToken
) -> None:
    clock = ManualClock()
    source = VaultClientSource(settings_of(regions, a_jwt_login(regions, written)), clock)
    first, second = regions[0].way, regions[1].way
    await source.read()
    first.is_down = True
    await source.read()
    clock.advance(timedelta(minutes=41))

    with pytest.raises(SourceUnavailable, match=first.address):
        await source.maintain()

    assert any("renew-self" in request for request in second.requests)


async def test_the_token_of_an_address_that_stays_unavailable_is_forgotten(
    regions: list[Region], written: ProjectedToken
) -> None:
    clock = ManualClock()
    source = VaultClientSource(settings_of(regions, a_jwt_login(regions, written)), clock)
    await source.read()
    regions[0].way.is_down = True
    clock.advance(HOUR)
    await source.maintain()
    requests = len(regions[0].way.requests)
    await source.maintain()
    assert len(regions[0].way.requests) == requests
    assert (await source.read()).version == 2


async def test_a_refusal_names_its_address(regions: list[Region], written: ProjectedToken) -> None:
    login = written.login(jwt_role(regions[1].place))
    source = VaultClientSource(settings_of(regions, login), SystemClock())
    with pytest.raises(SourceMisconfigured, match=f"Vault at {regions[0].way.address} has no role"):
        await source.read()
    regions[0].way.is_down = True
    assert (await source.read()).version == 2


async def test_the_namespace_is_sent_with_the_login(
    regions: list[Region], written: ProjectedToken
) -> None:
    config = regions[0].place.settings(
        written.login("any"), addresses=(regions[0].way.address,), namespace="team/a"
    )
    with pytest.raises(SourceMisconfigured, match="VAULT_NAMESPACE"):
        await VaultClientSource(config, SystemClock()).read()
    (login,) = regions[0].way.requests
    assert login.startswith("POST /v1/auth/jwt/login\n")
    assert "X-Vault-Namespace: team/a" in login
    assert "X-Vault-Token" not in login


async def test_an_operators_token_is_sent_to_every_address(regions: list[Region]) -> None:
    """The broker assumes that they are servers of one cluster."""
    token = regions[0].place.create_token()
    one = Region(regions[0].place, regions[0].way)
    with recording_proxy(regions[0].place.server.address) as other:
        both = [one, Region(regions[0].place, other)]
        source = VaultClientSource(settings_of(both, token_login(token)), SystemClock())
        await source.read()
        one.way.is_down = True
        assert (await source.read()).version == 1
        assert other.has_seen(token.reveal())
