"""Logins that are answered badly, slowly or elsewhere; the next address is asked each time."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.clock import SystemClock
from broker.secret_sources.source import SourceUnavailable
from broker.secret_sources.vault import VaultClientSource
from devstack.openbao import OpenBao
from tests.secret_sources.bad_vaults import NoVaults, SilentVaults
from tests.support.clock import ManualClock
from tests.support.issuer import OidcIssuer, oidc_issuer, self_signed
from tests.support.openbao import VaultPlace
from tests.support.processes import CHECKOUT
from tests.support.projected_tokens import ProjectedToken, jwt_role, trust_by_jwks
from tests.support.recording_proxy import recording_proxy

JSON = {"Content-Type": "application/json"}
GOOD_AUTH = {"client_token": "hvs.planted", "lease_duration": 60, "renewable": True}
KV = {"data": {"client_id": "c", "client_secret": "s"}, "metadata": {"version": 7}}


@pytest.fixture(scope="module")
def issuer() -> Iterator[OidcIssuer]:
    with oidc_issuer(SystemClock()) as started:
        yield started


@pytest.fixture(scope="module")
def server(issuer: OidcIssuer) -> Iterator[OpenBao]:
    with OpenBao() as started:
        trust_by_jwks(started, issuer)
        yield started


@pytest.fixture
def place(server: OpenBao) -> VaultPlace:
    place = VaultPlace.new(server)
    place.put("the-secret")
    return place


@pytest.fixture
def projected(issuer: OidcIssuer, tmp_path: Path) -> ProjectedToken:
    token = ProjectedToken(issuer, tmp_path / "token")
    token.write()
    return token


def source_of(place: VaultPlace, projected: ProjectedToken, *addresses: str) -> VaultClientSource:
    config = place.settings(projected.login(jwt_role(place)), addresses=addresses)
    return VaultClientSource(config, SystemClock(), answer_limit=timedelta(seconds=1))


async def check_the_next_is_asked(
    place: VaultPlace, projected: ProjectedToken, bad: str, words: str
) -> None:
    """The bad address is put into words; behind it a good one gives the client, in good time."""
    async with asyncio.timeout(20):
        with pytest.raises(SourceUnavailable) as caught:
            await source_of(place, projected, bad).read()
        assert f"{bad} {words}" in str(caught.value)
        assert "planted" not in str(caught.value)
        client = await source_of(place, projected, bad, place.server.address).read()
    assert client.client_secret.reveal() == "the-secret"


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"auth": None},
        {"auth": {}},
        {"auth": {"client_token": "hvs.planted", "renewable": True}},
        {"auth": GOOD_AUTH | {"lease_duration": None}},
        {"auth": GOOD_AUTH | {"lease_duration": "planted"}},
        {"auth": GOOD_AUTH | {"lease_duration": 10**30}},
        {"auth": GOOD_AUTH | {"lease_duration": float("inf")}},
        {"auth": GOOD_AUTH | {"client_token": None}},
        {"auth": GOOD_AUTH | {"client_token": ""}},
        {"auth": GOOD_AUTH | {"client_token": ["hvs.planted"]}},
    ],
    ids=["nothing", "no auth", "empty", "no lease", "null", "text", "huge", "endless", "no token",
         "blank token", "list"],
)  # fmt: skip
async def test_an_answer_that_is_no_login_is_no_answer(
    place: VaultPlace, projected: ProjectedToken, no_vaults: NoVaults, answer: dict[str, Any]
) -> None:
    bad = no_vaults.start(200, JSON, json.dumps(answer).encode())
    await check_the_next_is_asked(place, projected, bad, "answers, but not as Vault does")


@pytest.mark.parametrize("seconds", [0, 1, 10**12], ids=["none", "one", "too many"])
async def test_a_token_of_any_lifetime_is_used(
    place: VaultPlace, projected: ProjectedToken, no_vaults: NoVaults, seconds: int
) -> None:
    answer = {"auth": GOOD_AUTH | {"lease_duration": seconds}, "data": KV}
    address = no_vaults.start(200, JSON, json.dumps(answer).encode())
    clock = ManualClock()
    config = place.settings(projected.login("any"), addresses=(address,))
    source = VaultClientSource(config, clock)
    for _ in range(3):
        assert (await source.read()).version == 7
        await source.maintain()
        clock.advance(timedelta(seconds=1))


async def test_a_token_that_can_be_no_header_is_told_without_it(
    place: VaultPlace, projected: ProjectedToken, no_vaults: NoVaults
) -> None:
    answer = {"auth": GOOD_AUTH | {"client_token": "planted\r\nX-Other: 1"}, "data": KV}
    bad = no_vaults.start(200, JSON, json.dumps(answer).encode())
    await check_the_next_is_asked(place, projected, bad, "can't be asked: ")


async def test_a_login_that_hangs_is_given_up(
    place: VaultPlace, projected: ProjectedToken, silent_vaults: SilentVaults
) -> None:
    bad = silent_vaults.settings.addresses[0]
    await check_the_next_is_asked(place, projected, bad, "does not answer in time")


@asynccontextmanager
async def dripping_vault() -> AsyncIterator[str]:
    """An answer of which a byte comes ten times a second, and which never ends."""
    writing: set[asyncio.Task[None]] = set()

    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        writing.add(task)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
        try:
            while True:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.1)
        finally:
            writer.close()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        for task in writing:
            task.cancel()
        server.close()


async def test_a_login_answered_in_drops_is_given_up(
    place: VaultPlace, projected: ProjectedToken
) -> None:
    async with dripping_vault() as bad:
        # Every thread of the address stays with its answer; the next address has its own.
        for _ in range(2):
            await check_the_next_is_asked(place, projected, bad, "does not answer in time")


_ASK_AND_END = """
import asyncio, sys
from datetime import timedelta
from broker.clock import SystemClock
from broker.secret_sources.source import SourceUnavailable
from broker.secret_sources.vault import VaultClientSource
from broker.settings import VaultJwtLogin, VaultSource
from pathlib import Path
login = VaultJwtLogin("jwt", "any", Path(sys.argv[2]))
config = VaultSource((sys.argv[1],), None, login, "secret", "any")
source = VaultClientSource(config, SystemClock(), answer_limit=timedelta(seconds=0.2))
try:
    asyncio.run(source.read())
except SourceUnavailable:
    sys.exit(42)
"""


async def test_a_process_ends_while_an_answer_does_not(projected: ProjectedToken) -> None:
    async with dripping_vault() as bad, asyncio.timeout(60):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _ASK_AND_END, bad, str(projected.file), cwd=CHECKOUT
        )
        try:
            assert await process.wait() == 42
        finally:
            if process.returncode is None:
                process.kill()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_takes_the_token_nowhere(
    place: VaultPlace, projected: ProjectedToken, no_vaults: NoVaults, status: int
) -> None:
    """As a standby may answer; the host that it names is none that was configured."""
    with recording_proxy(place.server.address) as elsewhere:
        headers = {"Location": f"{elsewhere.address}/v1/auth/jwt/login"}
        bad = no_vaults.start(status, headers, b"")
        await check_the_next_is_asked(place, projected, bad, "redirects elsewhere")
    assert not elsewhere.requests


async def test_a_server_that_can_not_prove_its_name_gets_no_token(
    place: VaultPlace, projected: ProjectedToken, tmp_path: Path
) -> None:
    with oidc_issuer(SystemClock(), certificate=self_signed(tmp_path)) as pretender:
        await check_the_next_is_asked(place, projected, pretender.url, "fails TLS")
    assert not pretender.requests
