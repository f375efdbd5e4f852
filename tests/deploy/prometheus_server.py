"""A real Prometheus, from Debian's package, that scrapes one broker each second."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from tests.deploy.rule_files import ALERTS, written
from tests.support.processes import free_port, started, wait_until


@dataclass(frozen=True)
class Prometheus:
    """Its HTTP API."""

    http: httpx2.Client

    def query(self, expression: str) -> Sequence[Mapping[str, Any]]:
        """Return the current value; fails with Prometheus's error."""
        result: Sequence[Mapping[str, Any]] = self._get("query", query=expression)["result"]
        return result

    def rules(self) -> list[Mapping[str, Any]]:
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def firing(self) -> dict[str, Mapping[str, Any]]:
        """Return the alerts that fire now, by name."""
        return {
            alert["labels"]["alertname"]: alert
            for alert in self._get("alerts")["alerts"]
            if alert["state"] == "firing"
        }

    def has_scraped(self) -> bool:
        """True once it has two scrapes, as a rate needs."""
        try:
            is_ready = self.http.get("/-/ready").status_code == 200
            return is_ready and bool(self.query("count_over_time(up[1m]) > 1"))
        except httpx2.TransportError:
            return False

    def _get(self, path: str, **parameters: str) -> Any:
        answer = self.http.get(f"/api/v1/{path}", params=parameters)
        body = json.loads(answer.text) if answer.text.startswith("{") else {"error": answer.text}
        assert answer.status_code == 200, (parameters, body)
        return body["data"]


def is_installed() -> bool:
    return shutil.which("prometheus") is not None


@contextmanager
def scraping(
    target: str,
    folder: Path,
    *,
    external_labels: Mapping[str, str] | None = None,
    alerting: Mapping[str, Any] | None = None,
) -> Iterator[Prometheus]:
    """Run a Prometheus with the rules of `deploy/alerts`; `target` is a host and a port."""
    config = {
        "global": {
            "scrape_interval": "1s",
            "evaluation_interval": "1s",
            "external_labels": dict(external_labels or {}),
        },
        "rule_files": [str(path) for path in ALERTS],
        "scrape_configs": [{"job_name": "token-broker", "static_configs": [{"targets": [target]}]}],
        "alerting": dict(alerting or {}),
    }
    address = f"127.0.0.1:{free_port()}"
    command = (
        "prometheus",
        f"--config.file={written(folder / 'prometheus.yml', config)}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--log.level=warn",
    )
    with (
        started(command, log=folder / "prometheus.log"),
        httpx2.Client(base_url=f"http://{address}", timeout=30, trust_env=False) as http,
    ):
        server = Prometheus(http)
        wait_until("Prometheus has scraped the broker twice", server.has_scraped)
        yield server
