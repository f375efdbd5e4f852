"""Logins with malformed, slow or redirected answers; the broker tries the next address."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.clock import SystemClock
from broker.secret_sources.source import SourceUnavailable
from broker.secret_sources.vault import VaultClientSource
from tests.secret_sources.bad_vaults import FakeVaults, SilentVaults
from tests.support.clock import ManualClock
from tests.support.issuer import oidc_issuer, self_signed
from tests.support.openbao import VaultPlace
from tests.support.processes import CHECKOUT
from tests.support.projected_tokens import ProjectedToken, jwt_role
from tests.support.recording_proxy import recording_proxy

JSON = {"Content-Type": "application/json"}
GOOD_AUTH = {"client_token": "hvs.planted", "lease_duration": 60, "renewable": True}
KV = {"data": {"client_id": "c", "client_secret": "s"}, "metadata": {"version": 7}}


def source_of(place: VaultPlace, projected: ProjectedToken, *addresses: str) -> VaultClientSource:
    config = place.settings(projected.login(jwt_role(place)), addresses=addresses)
    return VaultClientSource(config, SystemClock(), answer_limit=timedelta(seconds=1))


async def check_the_next_address_is_tried(
    place: VaultPlace, projected: ProjectedToken, bad: str, words: str
) -> None:
    """Check that the bad address is reported, and that a good one after it returns the client."""
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
async def test_a_malformed_login_answer_is_rejected(
    jwt_place: VaultPlace, written: ProjectedToken, fake_vaults: FakeVaults, answer: dict[str, Any]
) -> None:
    bad = fake_vaults.start(200, JSON, json.dumps(answer).encode())
    await check_the_next_address_is_tried(jwt_place, written, bad, "answers, but not as Vault does")


@pytest.mark.parametrize("seconds", [0, 1, 10**12], ids=["none", "one", "too many"])
async def test_a_token_of_any_lifetime_is_used(
    jwt_place: VaultPlace, written: ProjectedToken, fake_vaults: FakeVaults, seconds: int
) -> None:
    answer = {"auth": GOOD_AUTH | {"lease_duration": seconds}, "data": KV}
    address = fake_vaults.start(200, JSON, json.dumps(answer).encode())
    clock = ManualClock()
    config = jwt_place.settings(written.login("any"), addresses=(address,))
    source = VaultClientSource(config, clock)
    for _ in range(3):
        assert (await source.read()).version == 7
        await source.maintain()
        clock.advance(timedelta(seconds=1))


async def test_a_token_that_cannot_be_a_header_is_reported_and_not_shown(
    jwt_place: VaultPlace, written: ProjectedToken, fake_vaults: FakeVaults
) -> None:
    answer = {"auth": GOOD_AUTH | {"client_token": "planted\r\nX-Other: 1"}, "data": KV}
    bad = fake_vaults.start(200, JSON, json.dumps(answer).encode())
    await check_the_next_address_is_tried(jwt_place, written, bad, "can't be asked: ")


async def test_a_login_that_hangs_times_out(
    jwt_place: VaultPlace, written: ProjectedToken, silent_vaults: SilentVaults
) -> None:
    bad = silent_vaults.settings.addresses[0]
    await check_the_next_address_is_tried(jwt_place, written, bad, "does not answer in time")


@asynccontextmanager
async def dripping_vault() -> AsyncIterator[str]:
    """A server whose answer never ends; it sends a byte ten times a second."""
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


async def test_a_login_answered_in_drops_times_out(
    jwt_place: VaultPlace, written: ProjectedToken
) -> None:
    async with dripping_vault() as bad:
        words = "does not answer in time"
        # Each answer keeps a thread of its address busy; the next address has its own threads.
        for _ in range(2):
            await check_the_next_address_is_tried(jwt_place, written, bad, words)


_READ_AND_EXIT = """
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


async def test_the_process_exits_while_an_answer_is_still_running(written: ProjectedToken) -> None:
    async with dripping_vault() as bad, asyncio.timeout(60):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _READ_AND_EXIT, bad, str(written.file), cwd=CHECKOUT
        )
        try:
            assert await process.wait() == 42
        finally:
            if process.returncode is None:
                process.kill()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(
    jwt_place: VaultPlace, written: ProjectedToken, fake_vaults: FakeVaults, status: int
) -> None:
    """A standby may redirect to a host that is not configured."""
    with recording_proxy(jwt_place.server.address) as elsewhere:
        headers = {"Location": f"{elsewhere.address}/v1/auth/jwt/login"}
        bad = fake_vaults.start(status, headers, b"")
        await check_the_next_address_is_tried(jwt_place, written, bad, "redirects elsewhere")
    assert not elsewhere.requests


async def test_a_server_without_a_valid_certificate_gets_no_token(
    jwt_place: VaultPlace, written: ProjectedToken, tmp_path: Path
) -> None:
    with oidc_issuer(SystemClock(), certificate=self_signed(tmp_path)) as pretender:
        await check_the_next_address_is_tried(jwt_place, written, pretender.url, "fails TLS")
    assert not pretender.requests
