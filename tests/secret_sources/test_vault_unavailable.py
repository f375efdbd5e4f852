"""Vault sealed, hung, unreachable or restarted, and other servers at its address."""

import asyncio
import logging
import time
import traceback
from datetime import timedelta

import pytest

from broker.clock import SystemClock
from broker.ops import health
from broker.ops.health import HealthCheck, Part
from broker.secret import Secret
from broker.secret_sources.source import SourceError, SourceUnavailable
from broker.secret_sources.vault import VaultClientSource
from broker.secret_sources.vault_api import THREADS
from broker.settings import VaultSource
from devstack.openbao import AppRole, OpenBao
from tests.secret_sources.bad_vaults import FakeVaults, SilentVaults
from tests.support.openbao import VaultPlace, approle_login, token_login


def source_of(config: VaultSource) -> VaultClientSource:
    return VaultClientSource(config, SystemClock())


def hasty_source_of(config: VaultSource) -> VaultClientSource:
    return VaultClientSource(config, SystemClock(), answer_limit=timedelta(seconds=1))


def patient_source_of(config: VaultSource) -> VaultClientSource:
    return VaultClientSource(config, SystemClock(), answer_limit=timedelta(seconds=60))


async def unavailable(source: VaultClientSource) -> str:
    with pytest.raises(SourceUnavailable) as caught:
        await source.read()
    return str(caught.value)


async def test_the_next_address_is_tried_when_one_is_unreachable(
    place: VaultPlace, dead_address: str
) -> None:
    place.put("the-secret")
    login = approle_login(place.create_approle())
    source = source_of(place.settings(login, addresses=(dead_address, place.server.address)))
    assert (await source.read()).client_secret.reveal() == "the-secret"


async def test_the_next_address_is_tried_when_one_is_sealed(
    place: VaultPlace, own_openbao: OpenBao
) -> None:
    place.put("the-secret")
    own_openbao.seal()
    login = token_login(place.create_token())
    addresses = (own_openbao.address, place.server.address)
    source = source_of(place.settings(login, addresses=addresses))
    assert (await source.read()).client_secret.reveal() == "the-secret"
    await source.ping()


async def test_every_address_is_named_when_none_answers(
    place: VaultPlace, own_openbao: OpenBao, dead_address: str
) -> None:
    own_openbao.seal()
    login = token_login(place.create_token())
    source = source_of(place.settings(login, addresses=(dead_address, own_openbao.address)))
    assert await unavailable(source) == (
        f"no Vault answers: {dead_address} can't be reached; {own_openbao.address} is sealed"
    )


async def test_a_sealed_vault_fails_the_ping(own_openbao: OpenBao) -> None:
    own_openbao.seal()
    source = source_of(VaultPlace.new(own_openbao).settings(token_login(Secret("any"))))
    with pytest.raises(SourceUnavailable, match="is sealed"):
        await source.ping()


async def test_a_hung_vault_times_out_without_blocking_the_event_loop(own_openbao: OpenBao) -> None:
    place = VaultPlace.new(own_openbao)
    source = hasty_source_of(place.settings(token_login(place.create_token())))
    own_openbao.pause()
    reading = asyncio.create_task(unavailable(source))
    iterations = 0
    async with asyncio.timeout(20):
        while not reading.done():
            await asyncio.sleep(0.01)
            iterations += 1
    assert "does not answer in time" in await reading
    # A blocked loop has one or two.
    assert iterations >= 5


async def test_readiness_checks_share_one_ping_of_a_hung_vault(
    silent_vaults: SilentVaults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_PING_SECONDS", 0.02)
    source = patient_source_of(silent_vaults.settings)
    check = HealthCheck([Part("secret_source", source.ping)], holds_tokens=lambda: False)
    for _ in range(10):
        assert (await check.check()).status == "degraded"
    await silent_vaults.connection()
    assert silent_vaults.count() == 0
    await check.aclose()
    await source.aclose()


async def test_a_hung_vault_takes_no_thread_of_the_executor(
    silent_vaults: SilentVaults,
) -> None:
    source = patient_source_of(silent_vaults.settings)
    pings = asyncio.gather(*(source.ping() for _ in range(40)), return_exceptions=True)
    await asyncio.sleep(0)
    async with asyncio.timeout(20):
        await asyncio.to_thread(time.monotonic)
    assert silent_vaults.count() <= THREADS
    pings.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pings
    await source.aclose()


async def test_a_closed_source_tries_no_further_address(silent_vaults: SilentVaults) -> None:
    source = patient_source_of(silent_vaults.settings)
    asking = asyncio.create_task(unavailable(source))
    connection = await silent_vaults.connection()
    await source.aclose()
    connection.close()
    await asking
    assert silent_vaults.count() == 0


async def test_an_approle_logs_in_again_after_a_restart_that_lost_its_token(
    own_openbao: OpenBao,
) -> None:
    place = VaultPlace.new(own_openbao)
    place.put("before")
    role = place.create_approle()
    source = source_of(place.settings(approle_login(role)))
    await source.read()

    port = int(own_openbao.address.rpartition(":")[2])
    own_openbao.stop()
    await unavailable(source)
    own_openbao.start(port)
    place.put("after")
    place.create_approle(known=role)

    assert (await source.read()).client_secret.reveal() == "after"


async def test_https_to_a_plain_port_is_reported_as_a_tls_failure(place: VaultPlace) -> None:
    address = place.server.address.replace("http://", "https://")
    source = source_of(place.settings(token_login(Secret("any")), addresses=(address,)))
    assert "fails TLS" in await unavailable(source)


async def test_no_secret_is_in_any_error_or_log(
    place: VaultPlace,
    own_openbao: OpenBao,
    fake_vaults: FakeVaults,
    dead_address: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="urllib3")
    place.put_fields({"client_id": "planted", "client_secret": ["planted"]})
    own_openbao.seal()
    echo = fake_vaults.start(400, {"Content-Type": "application/json"}, b'{"errors": ["planted"]}')
    with_password = dead_address.replace("//", "//planted:planted@")
    role = AppRole(Secret("planted"), Secret("planted"))
    shown = ""
    for config in (
        place.settings(token_login(place.create_token())),
        place.settings(token_login(Secret("planted"))),
        place.settings(token_login(Secret("planted\n"))),
        place.settings(approle_login(role)),
        place.settings(approle_login(role), addresses=(with_password, own_openbao.address)),
        place.settings(token_login(Secret("planted")), addresses=(echo,)),
    ):
        with pytest.raises(SourceError) as caught:
            await source_of(config).read()
        shown += "".join(traceback.format_exception(caught.value))
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
    assert "planted" not in shown
    assert "planted" not in caplog.text
