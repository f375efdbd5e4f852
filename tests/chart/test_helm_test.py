"""The program of `helm test` distinguishes right listeners from wrong ones."""

import subprocess
import sys
from pathlib import Path

import pytest

from broker.callers.keys import new_key
from devstack.google_standin import GoogleStandin
from tests.chart.rendering import CHART, MINIMAL, of_kind, render
from tests.support.processes import BrokerProcess
from tests.support.world import environment, stanza, write_callers


def _run(*urls: str) -> subprocess.CompletedProcess[str]:
    code = (CHART / "files/test_listeners.py").read_text("utf-8").replace("range(10)", "range(1)")
    return subprocess.run(
        [sys.executable, "-c", code.replace("time.sleep(2)", "pass"), *urls],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.process
def test_it_passes_with_a_real_broker_and_fails_with_swapped_listeners(
    tmp_path: Path, database_url: str, standin: GoogleStandin
) -> None:
    callers_file = tmp_path / "callers.yaml"
    write_callers(callers_file, {"calendar-sync": stanza(new_key())})
    settings = environment(database_url, standin, callers_file)
    with BrokerProcess(settings, tmp_path / "log") as running:
        urls = running.public_url, running.internal_url, running.ops_url
        passed, failed = _run(*urls), _run(urls[1], urls[0], urls[2])
    assert passed.returncode == 0, passed.stdout + passed.stderr
    assert passed.stdout.count("ok ") == 7
    assert failed.returncode == 1
    assert "FAILED" in failed.stdout


def test_the_pod_requests_the_three_services() -> None:
    (pod,) = of_kind(render(MINIMAL), "Pod")
    (container,) = pod["spec"]["containers"]
    assert container["command"] == ["python", "-c"]
    code, *urls = container["args"]
    assert code == (CHART / "files/test_listeners.py").read_text("utf-8")
    assert urls == [
        "http://demo-token-broker:80",
        "http://demo-token-broker-internal:80",
        "http://demo-token-broker-ops:8002",
    ]
