"""The client in use, through changes and outages of its source."""

import asyncio
import logging
import time
from datetime import timedelta
from pathlib import Path

import pytest

from broker.clock import SystemClock
from broker.secret import Secret
from broker.secret_sources import open_source
from broker.secret_sources.current_client import CurrentClient
from broker.secret_sources.source import (
    ClientSource,
    OAuthClient,
    SourceError,
    SourceMisconfigured,
    SourceUnavailable,
)
from broker.secret_sources.vault import VaultClientSource
from broker.settings import FileSource
from broker.telemetry.metrics import Metrics
from devstack.openbao import OpenBao
from tests.secret_sources.client_watch import StartWatching, eventually, logged_events
from tests.support.openbao import VaultPlace, approle_login, token_login


def vault_source(
    place: VaultPlace, answer_limit: timedelta = timedelta(seconds=5)
) -> VaultClientSource:
    return VaultClientSource(
        place.settings(approle_login(place.create_approle())),
        SystemClock(),
        answer_limit=answer_limit,
    )


def secret_of(current: CurrentClient) -> str:
    return current.client.client_secret.reveal()


def metric(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


async def loaded(source: ClientSource, metrics: Metrics) -> CurrentClient:
    current = CurrentClient(source, metrics, SystemClock())
    await current.load()
    return current


class CountedSource:
    """A source that records when it is read."""

    name = "counted"

    def __init__(self, source: ClientSource) -> None:
        self._source = source
        self.read_at: list[float] = []

    @property
    def reads(self) -> int:
        return len(self.read_at)

    async def read(self) -> OAuthClient:
        self.read_at.append(time.monotonic())
        return await self._source.read()

    async def ping(self) -> None:
        await self._source.ping()

    async def maintain(self) -> None:
        await self._source.maintain()

    async def aclose(self) -> None:
        await self._source.aclose()


async def test_there_is_no_client_before_the_first_read(
    place: VaultPlace, metrics: Metrics
) -> None:
    current = CurrentClient(vault_source(place), metrics, SystemClock())
    with pytest.raises(RuntimeError, match="before it was loaded"):
        _ = current.client


async def test_loading_from_an_empty_path_says_what_to_do(
    place: VaultPlace, metrics: Metrics
) -> None:
    with pytest.raises(SourceMisconfigured, match="vault kv put"):
        await loaded(vault_source(place), metrics)
    assert metric(metrics, "broker_secret_source_up", source="vault") == 0


async def test_the_metrics_show_version_and_health(place: VaultPlace, metrics: Metrics) -> None:
    place.put("first")
    place.put("second")
    await loaded(vault_source(place), metrics)
    assert metric(metrics, "broker_client_secret_version") == 2
    assert metric(metrics, "broker_secret_source_up", source="vault") == 1


async def test_a_new_version_is_picked_up(
    place: VaultPlace, metrics: Metrics, start_watching: StartWatching
) -> None:
    place.put("first")
    current = await start_watching(vault_source(place))
    place.put("second")
    await eventually(lambda: secret_of(current) == "second")
    assert metric(metrics, "broker_client_secret_version") == 2


async def test_a_replaced_file_is_picked_up(tmp_path: Path, start_watching: StartWatching) -> None:
    path = tmp_path / "credentials.json"
    path.write_text('{"web": {"client_id": "a", "client_secret": "first"}}')
    current = await start_watching(open_source(FileSource(path), SystemClock()))
    path.write_text('{"web": {"client_id": "a", "client_secret": "second"}}')
    await eventually(lambda: secret_of(current) == "second")


async def test_a_version_without_a_field_does_not_replace_the_client(
    place: VaultPlace, metrics: Metrics, start_watching: StartWatching
) -> None:
    place.put("good")
    current = await start_watching(vault_source(place))
    place.put_fields({"client_secret": "half"})
    await eventually(lambda: metric(metrics, "broker_secret_source_up", source="vault") == 0)
    assert secret_of(current) == "good"
    assert metric(metrics, "broker_client_secret_version") == 1
    with pytest.raises(SourceMisconfigured, match="no field `client_id`"):
        await current.ping()


async def test_a_deleted_version_does_not_replace_the_client(
    place: VaultPlace, metrics: Metrics, start_watching: StartWatching
) -> None:
    place.put("good")
    current = await start_watching(vault_source(place))
    place.delete_newest()
    await eventually(lambda: metric(metrics, "broker_secret_source_up", source="vault") == 0)
    assert secret_of(current) == "good"


async def test_a_fixed_version_is_picked_up_and_the_ping_succeeds(
    place: VaultPlace, metrics: Metrics, start_watching: StartWatching
) -> None:
    place.put("good")
    current = await start_watching(vault_source(place))
    place.put_fields({"client_id": "half"})
    await eventually(lambda: metric(metrics, "broker_secret_source_up", source="vault") == 0)
    place.put("fixed")
    await eventually(lambda: secret_of(current) == "fixed")
    await current.ping()


@pytest.mark.parametrize("outage", ["seal", "pause"])
async def test_the_last_valid_client_stays_in_use_while_vault_is_unavailable(
    own_openbao: OpenBao, metrics: Metrics, start_watching: StartWatching, outage: str
) -> None:
    place = VaultPlace.new(own_openbao)
    place.put("good")
    current = await start_watching(vault_source(place, timedelta(seconds=1)))

    (own_openbao.seal if outage == "seal" else own_openbao.pause)()
    await eventually(lambda: metric(metrics, "broker_secret_source_up", source="vault") == 0)
    assert secret_of(current) == "good"
    with pytest.raises(SourceUnavailable):
        await current.ping()

    (own_openbao.unseal if outage == "seal" else own_openbao.resume)()
    place.put("newer")
    await eventually(lambda: secret_of(current) == "newer")
    assert metric(metrics, "broker_secret_source_up", source="vault") == 1


async def test_an_unusable_source_is_read_with_back_off(
    place: VaultPlace, metrics: Metrics
) -> None:
    place.put("good")
    source = CountedSource(vault_source(place))
    current = CurrentClient(source, metrics, SystemClock(), poll_every=timedelta(milliseconds=20))
    await current.load()
    place.delete_newest()
    watch = asyncio.create_task(current.watch())
    await eventually(lambda: len(source.read_at) == 6)
    watch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watch
    await current.aclose()
    assert source.read_at[5] - source.read_at[4] >= 0.8 * 8 * 0.02


async def test_an_outage_is_logged_once(
    own_openbao: OpenBao,
    metrics: Metrics,
    caplog: pytest.LogCaptureFixture,
) -> None:
    place = VaultPlace.new(own_openbao)
    place.put("good")
    current = await loaded(vault_source(place), metrics)
    own_openbao.seal()
    with caplog.at_level(logging.WARNING):
        await current.reread()
        await current.reread()
    warned = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [vars(record)["event"] for record in warned] == ["oauth_client_unreadable"]


async def test_reread_is_true_for_another_client(place: VaultPlace, metrics: Metrics) -> None:
    place.put("first")
    current = await loaded(vault_source(place), metrics)
    place.put("second")
    assert await current.reread() is True
    assert secret_of(current) == "second"


async def test_reread_is_false_without_a_change(place: VaultPlace, metrics: Metrics) -> None:
    place.put("first")
    current = await loaded(vault_source(place), metrics)
    assert await current.reread() is False


async def test_reread_is_false_for_a_new_version_with_the_same_credentials(
    place: VaultPlace, metrics: Metrics
) -> None:
    place.put("same")
    current = await loaded(vault_source(place), metrics)
    place.put("same")
    assert await current.reread() is False
    assert current.client.version == 2


async def test_reread_does_not_read_if_the_client_has_already_changed(
    place: VaultPlace, metrics: Metrics
) -> None:
    place.put("first")
    source = CountedSource(vault_source(place))
    current = await loaded(source, metrics)
    used = current.client
    place.put("second")
    await current.reread()
    reads = source.reads
    assert await current.reread(used) is True
    assert source.reads == reads


async def test_concurrent_rereads_share_one_read(place: VaultPlace, metrics: Metrics) -> None:
    place.put("first")
    source = CountedSource(vault_source(place))
    current = await loaded(source, metrics)
    place.put("second")
    answers = await asyncio.gather(*(current.reread() for _ in range(50)))
    assert all(answers)
    assert source.reads == 2


async def test_reread_is_false_while_vault_is_unavailable(
    own_openbao: OpenBao, metrics: Metrics
) -> None:
    place = VaultPlace.new(own_openbao)
    place.put("good")
    current = await loaded(vault_source(place), metrics)
    own_openbao.seal()
    assert await current.reread() is False
    assert secret_of(current) == "good"


async def test_reread_waits_no_longer_than_its_limit(
    own_openbao: OpenBao, metrics: Metrics
) -> None:
    place = VaultPlace.new(own_openbao)
    place.put("good")
    source = VaultClientSource(
        place.settings(token_login(place.create_token())),
        SystemClock(),
        answer_limit=timedelta(seconds=60),
    )
    current = CurrentClient(
        source, metrics, SystemClock(), reread_limit=timedelta(milliseconds=100)
    )
    await current.load()
    own_openbao.pause()
    async with asyncio.timeout(20):
        assert await current.reread() is False
    await current.aclose()


class ScriptedSource:
    """A source with a result for each read; the last one repeats."""

    name = "scripted"

    def __init__(self, *results: OAuthClient | SourceError) -> None:
        self._results = list(results)
        self.maintenance_error: SourceError | None = None

    async def read(self) -> OAuthClient:
        result = self._results.pop(0) if len(self._results) > 1 else self._results[0]
        if isinstance(result, SourceError):
            raise result
        return result

    async def ping(self) -> None:
        await self.read()

    async def maintain(self) -> None:
        if self.maintenance_error is not None:
            raise self.maintenance_error

    async def aclose(self) -> None:
        """Nothing is held open."""


def version(number: int) -> OAuthClient:
    return OAuthClient("the-client", Secret(f"secret-{number}"), number)


async def test_each_change_is_logged_once_with_its_event(
    metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    down = SourceUnavailable("it is down")
    source = ScriptedSource(version(1), down, down, version(1), version(2))
    current = CurrentClient(source, metrics, SystemClock())
    with caplog.at_level(logging.INFO):
        await current.load()
        rereads = [await current.reread() for _ in range(4)]
    assert rereads == [False, False, False, True]
    assert logged_events(caplog) == [
        "oauth_client_loaded",
        "oauth_client_unreadable",
        "oauth_client_readable",
        "oauth_client_loaded",
    ]


async def test_a_failed_maintenance_is_logged_once(
    metrics: Metrics, start_watching: StartWatching, caplog: pytest.LogCaptureFixture
) -> None:
    source = ScriptedSource(version(1))
    source.maintenance_error = SourceMisconfigured("the token cannot be renewed")
    with caplog.at_level(logging.WARNING):
        await start_watching(source)
        await eventually(lambda: bool(caplog.records))
        await asyncio.sleep(0.2)
    assert logged_events(caplog) == ["secret_source_access_not_renewed"]
