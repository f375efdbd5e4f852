"""A caller that has gone wild is in nobody's way but its own."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from broker.callers.keys import new_key
from devstack.google_standin import GoogleStandin
from devstack.postgres import EmbeddedPostgres
from tests.chaos.fleet import Fleet, User, running_fleet, token_url
from tests.support.processes import CHECKOUT, wait_until
from tests.support.world import stanza, write_callers

WARM_LIMIT_SECONDS = 0.3
"""Of the broker's processor time: what a hundredth of the warm answers may exceed. It is spent on
the crowd, and how busy the machine is makes no difference."""
COLD_LIMIT_SECONDS = 2.5
"""The same of each that is new: while the crowd made the rounds of the event loop as long as it
liked, that was five seconds."""
GETS = {"404 1000", "400 1000", "200 1", "slow 429 1"}
"""What it is to have got in the end, however slow the machine is, and how many times."""

_PATIENCE_SECONDS = 180.0


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory,
    postgres: EmbeddedPostgres,
    shared_database: str,
    google: GoogleStandin,
) -> Iterator[tuple[Fleet, dict[str, str]]]:
    """One broker with a caller that behaves, one without manners and one with a rate limit."""
    folder: Path = tmp_path_factory.mktemp("wild")
    with running_fleet(folder, postgres, shared_database, google, replicas=1) as fleet:
        google.behave(token_lifetime=3600)
        keys = {"wild": new_key(), "limited": new_key()}
        limit = {"requests_per_second": 2, "burst": 4}
        write_callers(
            folder / "callers.yaml",
            {
                "calendar-sync": stanza(fleet.key),
                "wild": stanza(keys["wild"]),
                "limited": stanza(keys["limited"], rate_limit=limit),
            },
        )
        wait_until(
            "the callers file is in force",
            lambda: _ask(fleet, keys["limited"], "nobody").status_code == 404,
        )
        time.sleep(2)  # Its bucket is full again.
        yield fleet, keys


def _ask(fleet: Fleet, key: str, user_id: str) -> httpx2.Response:
    return fleet.http.get(
        token_url(fleet.replicas[0], User(user_id, "")), headers={"Authorization": f"Bearer {key}"}
    )


@contextmanager
def _gone_wild(fleet: Fleet, key: str) -> Iterator[dict[str, Any]]:
    """What it got is in the result once it has ended, which it does once it got all of `GETS`."""
    port = fleet.replicas[0].ports.internal
    wild = subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.wild_caller", str(port), key],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert wild.stdin is not None
    assert wild.stdout is not None
    got: dict[str, Any] = {}
    out_of_patience = threading.Timer(_PATIENCE_SECONDS, wild.kill)
    out_of_patience.start()
    try:
        yield got
        missing = set(GETS)
        while missing:
            line = wild.stdout.readline()
            assert line, f"it did not get {missing}"
            missing.discard(line.strip())
        wild.stdin.close()
        got |= json.loads(wild.stdout.read().splitlines()[-1])
    finally:
        out_of_patience.cancel()
        wild.kill()
        wild.wait()
        wild.stdout.close()


@contextmanager
def _measured(fleet: Fleet, into: list[float]) -> Iterator[None]:
    """How long the broker's processor is at work meanwhile, in seconds."""
    process = psutil.Process(fleet.replicas[0].pid)
    began = process.cpu_times()
    yield
    ended = process.cpu_times()
    into.append(ended.user + ended.system - began.user - began.system)


def _fetch(fleet: Fleet, user: User) -> None:
    answer = _ask(fleet, fleet.key, user.id)
    assert answer.status_code == 200, answer.text


def _fetch_anew(fleet: Fleet, user: User) -> None:
    """The same over a connection that is yet to be let in."""
    url = token_url(fleet.replicas[0], user)
    assert httpx2.get(url, headers=fleet.authorization, trust_env=False).status_code == 200


def test_beside_a_wild_caller_others_are_served_as_ever(
    served: tuple[Fleet, dict[str, str]],
) -> None:
    fleet, keys = served
    warm, *cold = fleet.connect(11)
    _fetch(fleet, warm)
    with _gone_wild(fleet, keys["wild"]) as got:
        wait_until(
            "it is wild",
            lambda: (
                fleet.replicas[0].metric(
                    "broker_token_requests_total", caller="wild", outcome="grant_not_found"
                )
                > 500
            ),
        )
        beside: list[float] = []
        fetched: list[float] = []
        anew: list[float] = []
        ends = time.monotonic() + 12
        while time.monotonic() < ends:
            for _ in range(20):
                with _measured(fleet, beside):
                    _fetch(fleet, warm)
            with _measured(fleet, anew):
                _fetch_anew(fleet, warm)
            if cold:
                with _measured(fleet, fetched):
                    _fetch(fleet, cold.pop())
    beside.sort()
    assert beside[len(beside) * 99 // 100] < WARM_LIMIT_SECONDS
    assert max(fetched) < COLD_LIMIT_SECONDS
    assert max(anew) < COLD_LIMIT_SECONDS
    assert got["faults"] == []
    assert set(got["answers"]) <= {"200", "400", "404", "429", "slow 408", "slow 429"}


def test_who_waits_as_long_as_it_is_told_is_served_again(
    served: tuple[Fleet, dict[str, str]],
) -> None:
    fleet, keys = served
    (user,) = fleet.connect(1)
    answers = [_ask(fleet, keys["limited"], user.id) for _ in range(8)]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert answers[0].status_code == 200
    assert refused
    assert refused[-1].json()["code"] == "rate_limited"
    assert refused[-1].json()["request_id"] == refused[-1].headers["x-request-id"]
    time.sleep(int(refused[-1].headers["retry-after"]))
    assert _ask(fleet, keys["limited"], user.id).status_code == 200
    assert _ask(fleet, fleet.key, user.id).status_code == 200
    counted = fleet.replicas[0].metric("broker_rate_limited_total", caller="limited", limit="rate")
    assert counted == len(refused)
