"""The callers in force: credentials, and changes of the file."""

import asyncio
import errno
import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from broker.callers.callers_file import CallersFileError
from broker.callers.keys import hash_key
from broker.callers.model import Caller
from broker.callers.registry import MAX_CREDENTIAL_BYTES, CallerRegistry
from broker.telemetry.metrics import Metrics
from tests.callers.stanzas import CONTRACT, KEY, OTHER_KEY, SCOPE, callers_file, stanza
from tests.support.clock import ManualClock

# ruff: noqa: ASYNC240  (small files on this machine are what is being tested)

OTHER = callers_file(stanza("other", keys=f'["{hash_key(OTHER_KEY)}"]'))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "callers.yaml"
    path.write_text(CONTRACT)
    return path


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def registry(path: Path, metrics: Metrics) -> CallerRegistry:
    registry = CallerRegistry(path, (SCOPE,), ManualClock(), metrics)
    registry.load()
    return registry


def name_for(registry: CallerRegistry, key: str) -> str | None:
    caller = registry.authenticate(b"Bearer " + key.encode())
    return caller.name if caller else None


def is_up(metrics: Metrics) -> bool:
    return metrics.registry.get_sample_value("broker_callers_file_up") == 1


async def settle(registry: CallerRegistry) -> None:
    """Poll until the file has settled."""
    while await registry.poll():
        pass


def refusals(caplog: pytest.LogCaptureFixture) -> list[list[str]]:
    return [vars(record)["problems"] for record in events(caplog, "callers_file_rejected")]


def events(caplog: pytest.LogCaptureFixture, event: str) -> list[logging.LogRecord]:
    return [record for record in caplog.records if vars(record).get("event") == event]


# ---- credentials


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
def test_a_key_identifies_the_caller_whatever_the_case_of_the_scheme(
    registry: CallerRegistry, scheme: str
) -> None:
    caller = registry.authenticate(f"{scheme} {KEY}".encode())

    assert caller is not None
    assert caller.name == "calendar-sync"


@pytest.mark.parametrize(
    "header",
    [
        None,
        b"",
        b"Bearer",
        b"Bearer ",
        b"Bearer  " + KEY.encode(),
        b"Bearer " + KEY.encode() + b" ",
        b"Bearer\t" + KEY.encode(),
        b"Bearer " + KEY.encode()[:-1],
        b"Bearer " + KEY.encode() + b"A",
        b"Bearer " + KEY.encode().lower(),
        b"Bearer " + KEY.encode() + b"," + KEY.encode(),
        b"Basic " + KEY.encode(),
        b"Token: " + KEY.encode(),
        KEY.encode(),
        b"Bearer " + hash_key(KEY).encode(),
        b"Bearer \xff\xfe",
        b"Bearer " + b"a" * 100_000,
    ],
)
def test_any_other_credential_identifies_no_caller(
    registry: CallerRegistry, header: bytes | None
) -> None:
    assert registry.authenticate(header) is None


@pytest.mark.parametrize("key", ["with a space in the key", "ключ-ключ-ключ", "tab\tin-the-key"])
def test_a_key_that_is_no_bearer_token_is_refused_although_its_hash_is_listed(
    path: Path, metrics: Metrics, key: str
) -> None:
    path.write_text(callers_file(stanza(keys=f'["{hash_key(key)}"]')))
    registry = CallerRegistry(path, (), ManualClock(), metrics)
    registry.load()

    assert registry.authenticate(b"Bearer " + key.encode()) is None


@pytest.mark.parametrize(("length", "expected"), [(4096, True), (4097, False)])
def test_a_credential_may_be_as_long_as_a_jwt_but_no_longer(
    path: Path, metrics: Metrics, length: int, expected: bool
) -> None:
    assert MAX_CREDENTIAL_BYTES == 4096
    key = "k" * length
    path.write_text(callers_file(stanza(keys=f'["{hash_key(key)}"]')))
    registry = CallerRegistry(path, (), ManualClock(), metrics)
    registry.load()

    assert (registry.authenticate(b"Bearer " + key.encode()) is not None) is expected


def test_no_caller_is_known_before_the_file_is_loaded(path: Path, metrics: Metrics) -> None:
    registry = CallerRegistry(path, (), ManualClock(), metrics)

    assert name_for(registry, KEY) is None


def test_the_registry_contains_no_key(registry: CallerRegistry) -> None:
    assert name_for(registry, KEY) == "calendar-sync"
    assert KEY not in repr([vars(registry), registry.callers])


# ---- the first reading


def test_a_valid_file_is_in_force_after_loading(registry: CallerRegistry, metrics: Metrics) -> None:
    assert [caller.name for caller in registry.callers] == ["calendar-sync"]
    assert registry.generation == 1
    assert registry.loaded_at == ManualClock().now()
    assert is_up(metrics)


def test_an_invalid_file_stops_the_start(path: Path, metrics: Metrics) -> None:
    path.write_text("callers: []")
    registry = CallerRegistry(path, (), ManualClock(), metrics)

    with pytest.raises(CallersFileError, match="must be a mapping"):
        registry.load()
    assert not is_up(metrics)


@pytest.mark.parametrize("kind", ["missing", "directory", "pipe"])
def test_an_unreadable_file_stops_the_start(tmp_path: Path, metrics: Metrics, kind: str) -> None:
    path = tmp_path / "it"
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)

    with pytest.raises(CallersFileError, match=f"can't read {path}"):
        CallerRegistry(path, (), ManualClock(), metrics).load()


def test_warnings_are_logged_and_stop_nothing(
    path: Path, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    CallerRegistry(path, ("openid",), ManualClock(), metrics).load()

    warnings = events(caplog, "callers_file_warning")
    assert [warning.levelno for warning in warnings] == [logging.WARNING]
    (scope,) = [vars(warning)["warning"].partition("; ")[0] for warning in warnings]
    assert scope.endswith(f"'{SCOPE}' is not in GOOGLE_SCOPES, so no link may request it")


# ---- changes


async def test_a_changed_file_takes_effect(path: Path, registry: CallerRegistry) -> None:
    path.write_text(OTHER)
    await settle(registry)

    assert name_for(registry, KEY) is None
    assert name_for(registry, OTHER_KEY) == "other"
    assert registry.generation == 2


def caller_of(registry: CallerRegistry, key: str) -> Caller | None:
    return registry.authenticate(b"Bearer " + key.encode())


async def test_a_caller_whose_policy_stays_the_same_stays_the_same_object(
    path: Path, registry: CallerRegistry
) -> None:
    before = caller_of(registry, KEY)
    path.write_text(CONTRACT + stanza("other", keys=f'["{hash_key(OTHER_KEY)}"]'))
    await settle(registry)

    assert registry.generation == 2
    assert caller_of(registry, KEY) is before
    assert caller_of(registry, OTHER_KEY) is not None


async def test_a_caller_whose_policy_changes_is_a_new_object(
    path: Path, registry: CallerRegistry
) -> None:
    before = caller_of(registry, KEY)
    path.write_text(CONTRACT.replace("tokens:read, ", ""))
    await settle(registry)

    after = caller_of(registry, KEY)
    assert after is not None
    assert after is not before


async def test_a_replaced_key_is_refused_though_the_policy_stays(
    path: Path, registry: CallerRegistry
) -> None:
    before = caller_of(registry, KEY)
    path.write_text(CONTRACT.replace(hash_key(KEY), hash_key(OTHER_KEY)))
    await settle(registry)

    assert caller_of(registry, KEY) is None
    assert caller_of(registry, OTHER_KEY) is before


async def test_a_caller_that_was_removed_and_added_is_a_new_object(
    path: Path, registry: CallerRegistry
) -> None:
    before = caller_of(registry, KEY)
    for text in (OTHER, CONTRACT):
        path.write_text(text)
        await settle(registry)

    after = caller_of(registry, KEY)
    assert after == before
    assert after is not before


async def test_an_unchanged_file_changes_nothing(path: Path, registry: CallerRegistry) -> None:
    await settle(registry)
    path.touch()
    await settle(registry)

    assert registry.generation == 1


async def test_a_file_of_the_same_size_and_time_is_read(
    path: Path, registry: CallerRegistry
) -> None:
    await settle(registry)
    before = path.stat()
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # Some file systems' clocks are coarse.
        path.write_text(CONTRACT.replace(hash_key(KEY), hash_key(OTHER_KEY)))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    await settle(registry)

    assert name_for(registry, OTHER_KEY) == "calendar-sync"


async def test_a_configmaps_swapped_links_take_effect(tmp_path: Path, metrics: Metrics) -> None:
    for version, text in (("..1", CONTRACT), ("..2", OTHER)):
        (tmp_path / version).mkdir()
        (tmp_path / version / "callers.yaml").write_text(text)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "callers.yaml").symlink_to("..data/callers.yaml")
    registry = CallerRegistry(tmp_path / "callers.yaml", (), ManualClock(), metrics)
    registry.load()

    (tmp_path / "..data_tmp").symlink_to("..2")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")
    await settle(registry)

    assert name_for(registry, OTHER_KEY) == "other"


async def test_an_invalid_file_is_rejected_and_the_previous_one_stays_in_force(
    path: Path, registry: CallerRegistry, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_text(CONTRACT.replace("tokens:read", "token:read").replace(hash_key(KEY), KEY))
    await settle(registry)

    assert name_for(registry, KEY) == "calendar-sync"
    assert registry.generation == 1
    assert not is_up(metrics)
    (problems,) = refusals(caplog)
    assert len(problems) == 2
    assert KEY not in caplog.text + str(problems)
    with pytest.raises(CallersFileError, match="did you mean 'tokens:read'"):
        await registry.ping()


async def test_an_invalid_content_is_logged_once(
    path: Path, registry: CallerRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    for text in ("callers: 1", "callers: 1", "callers: [1]"):
        path.write_text(text)
        await settle(registry)
        await settle(registry)

    assert len(refusals(caplog)) == 2


async def test_a_fixed_file_takes_effect(
    path: Path, registry: CallerRegistry, metrics: Metrics
) -> None:
    path.write_text("callers: 1")
    await settle(registry)
    path.write_text(OTHER)
    await settle(registry)

    await registry.ping()
    assert is_up(metrics)
    assert name_for(registry, OTHER_KEY) == "other"


async def test_restoring_the_file_in_force_ends_the_problem(
    path: Path, registry: CallerRegistry, metrics: Metrics
) -> None:
    path.write_text("callers: 1")
    await settle(registry)
    path.write_text(CONTRACT)
    await settle(registry)

    await registry.ping()
    assert is_up(metrics)
    assert registry.generation == 1


async def test_a_file_that_is_replaced_by_way_of_a_deletion_is_not_reported(
    path: Path, registry: CallerRegistry, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    await settle(registry)
    path.unlink()
    assert await registry.poll() is True
    path.write_text(OTHER)
    await settle(registry)

    assert name_for(registry, OTHER_KEY) == "other"
    assert is_up(metrics)
    assert refusals(caplog) == []


async def test_a_missing_file_is_reported_once_and_read_when_it_returns(
    path: Path, registry: CallerRegistry, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    path.rename(path.with_suffix(".moved"))
    for _ in range(5):
        await registry.poll()
    assert not is_up(metrics)
    assert refusals(caplog) == [[f"can't read {path}: No such file or directory"]]
    assert name_for(registry, KEY) == "calendar-sync"

    path.with_suffix(".moved").rename(path)
    await settle(registry)
    await registry.ping()
    assert is_up(metrics)


async def test_a_file_that_is_still_being_written_is_not_read(
    path: Path, registry: CallerRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    half = OTHER[: len(OTHER) // 2]
    path.write_text(half)
    assert await registry.poll() is True
    path.write_text(OTHER)
    assert await registry.poll() is True
    await settle(registry)

    assert name_for(registry, OTHER_KEY) == "other"
    assert refusals(caplog) == []


async def test_an_empty_file_is_rejected(
    path: Path, registry: CallerRegistry, metrics: Metrics
) -> None:
    path.write_text("")
    await settle(registry)

    assert name_for(registry, KEY) == "calendar-sync"
    assert not is_up(metrics)


async def test_watch_follows_the_file(path: Path, metrics: Metrics) -> None:
    registry = CallerRegistry(path, (), ManualClock(), metrics, interval=timedelta(milliseconds=20))
    registry.load()
    watch = asyncio.create_task(registry.watch())
    try:
        path.write_text(OTHER)
        async with asyncio.timeout(5):
            while name_for(registry, OTHER_KEY) is None:  # noqa: ASYNC110  (a file sends no notification)
                await asyncio.sleep(0.01)
    finally:
        watch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watch


async def test_a_removed_key_is_refused_although_all_other_threads_are_busy(
    path: Path, registry: CallerRegistry
) -> None:
    loop, go_on = asyncio.get_running_loop(), threading.Event()
    only_one = ThreadPoolExecutor(1)
    loop.set_default_executor(only_one)
    busy = loop.run_in_executor(None, go_on.wait)
    try:
        path.write_text(OTHER)
        async with asyncio.timeout(5):
            await settle(registry)
    finally:
        go_on.set()
        await busy
        only_one.shutdown()
        # The loop is shared: later tests are to have as many threads as ever.
        loop.set_default_executor(ThreadPoolExecutor())
    assert name_for(registry, KEY) is None


async def test_a_file_that_could_not_be_opened_is_retried_without_a_change(
    path: Path, registry: CallerRegistry, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_descriptors(_path: str, _flags: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    path.write_text(OTHER)
    with monkeypatch.context() as patch:
        patch.setattr("broker.callers.watched_file._open_without_waiting", out_of_descriptors)
        await settle(registry)
        assert not is_up(metrics)
    await settle(registry)

    assert is_up(metrics)
    assert name_for(registry, OTHER_KEY) == "other"


async def test_a_file_written_between_poll_and_reading_is_polled_again(
    path: Path,
    registry: CallerRegistry,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def write_half_before_opening(name: str, flags: int) -> int:
        path.write_text(OTHER[: len(OTHER) // 2])
        return os.open(name, flags)

    path.write_text(OTHER + "\n")
    assert await registry.poll() is True
    with monkeypatch.context() as patch:
        patch.setattr(
            "broker.callers.watched_file._open_without_waiting", write_half_before_opening
        )
        assert await registry.poll() is True
    path.write_text(OTHER)
    await settle(registry)

    assert refusals(caplog) == []
    assert name_for(registry, OTHER_KEY) == "other"
