"""Rules and panels against a real broker and a real Prometheus under a mixed load.

The first tests need no Prometheus: they read the broker's own scrape.
"""

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest

from broker.clock import SystemClock
from devstack.google_standin import GoogleStandin
from devstack.postgres import EmbeddedPostgres
from tests.chaos.fleet import running_fleet
from tests.deploy.mixed_load import MixedLoad, trust
from tests.deploy.prometheus_server import Prometheus, is_installed, scraping
from tests.deploy.rule_files import metrics_in, panels, queries, rules, selected_in, slowly_recorded
from tests.support.issuer import oidc_issuer
from tests.support.optional_parts import skip_without
from tests.support.processes import BrokerProcess

pytestmark = pytest.mark.process

NOT_FROM_THE_BROKER = {
    "up": "Prometheus's own",
    "broker_drill_last_success_timestamp_seconds": "written by the backup drill",
}
"""Metrics that no broker exports."""

LABELS_OF_A_SCRAPE = {"namespace", "job", "instance"}

UNKNOWN_IN_ADVANCE = (
    r"broker_http_request_duration_seconds",  # Routes, methods and statuses.
    r"broker_google_requests_total\{.*outcome=\"http_\d+\"",
)
"""Counters whose first event may create the series; the rules allow for that."""

MAY_BE_EMPTY: Mapping[str, str] = {
    "Rate-limited requests A": "nobody exceeds a limit; only what is above 0 is drawn",
}
"""Panels that may show nothing under this load, with the reason."""

NOT_UNDER_THIS_LOAD = {"500", "403", "429"}
"""Statuses that this load does not cause, or not at every listener."""

_VARIABLES = {
    "$__rate_interval": "1m",
    "$__range": "5m",
    "$namespace": ".*",
    "$job": ".*",
    "$instance": ".*",
    "$caller": ".*",
}
_WEBHOOKS = {
    "BROKER_WEBHOOK_URL": "http://127.0.0.1:1/nobody",
    "BROKER_WEBHOOK_SECRET": "whsec_" + "c2VjcmV0" * 6,  # pragma: allowlist secret
}
_SAMPLE = re.compile(r"^(?P<series>(?P<name>[a-z_:]+)(?:\{(?P<labels>.*)\})?) (?P<value>\S+)$")


@dataclass(frozen=True)
class Live:
    """A broker after the load, and its scrapes."""

    prometheus: Prometheus | None
    load: MixedLoad
    before: str
    """The scrape before the load."""
    after: str


def samples(scrape: str) -> Iterator[re.Match[str]]:
    return filter(None, map(_SAMPLE.match, scrape.splitlines()))


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, postgres: EmbeddedPostgres) -> Iterator[Live]:
    folder: Path = tmp_path_factory.mktemp("live")
    database = f"live_{uuid4().hex}"
    postgres.create_database(database)
    google = GoogleStandin()
    google.start()
    try:
        with (
            running_fleet(
                folder, postgres, database, google, replicas=1, settings=_WEBHOOKS
            ) as fleet,
            oidc_issuer(SystemClock()) as issuer,
            ExitStack() as stack,
        ):
            trust(fleet, issuer)
            load = MixedLoad(fleet, issuer)
            (broker,) = fleet.replicas
            server = None
            if is_installed():
                server = stack.enter_context(scraping(f"127.0.0.1:{broker.ports.ops}", folder))
            before = _scrape(broker)
            load.run()
            yield Live(server, load, before, _scrape(broker))
    finally:
        google.stop()
        postgres.drop_database(database)


@pytest.fixture
def prometheus(live: Live) -> Prometheus:
    if live.prometheus is None:
        skip_without("Prometheus is missing (Debian package: prometheus)")
    return live.prometheus


def _scrape(broker: BrokerProcess) -> str:
    return httpx2.get(f"{broker.ops_url}/metrics", timeout=10, trust_env=False).text


def _samples(scrape: str) -> Iterator[re.Match[str]]:
    return filter(None, map(_SAMPLE.match, scrape.splitlines()))


def _name(sample: re.Match[str]) -> str:
    """Return the metric's name; a histogram's without the suffix of its series."""
    return re.sub("_(bucket|count|sum)$", "", sample["name"])


# ---- the broker's scrape


def test_every_metric_of_a_rule_or_a_panel_is_scraped(live: Live) -> None:
    scraped = {_name(sample) for sample in _samples(live.after)} | set(NOT_FROM_THE_BROKER)
    missing = {purpose: metrics_in(query) - scraped for purpose, query in queries().items()}
    assert not {purpose: names for purpose, names in missing.items() if names}


def test_every_query_names_some_metric() -> None:
    """Otherwise the test before would pass for a query that it cannot read."""
    named = [bool(metrics_in(query)) or ":" in query for query in queries().values()]
    assert named
    assert named.count(False) == 1  # The number of alerts that fire.


def test_every_label_and_value_of_a_rule_or_a_panel_is_scraped(live: Live) -> None:
    known: dict[tuple[str, str], set[str]] = {}
    for sample in (*_samples(live.before), *_samples(live.after)):
        for label, value in re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', sample["labels"] or ""):
            known.setdefault((_name(sample), label), set()).add(value)
    wrong = []
    for purpose, query in queries().items():
        for asked in selected_in(query):
            if asked.metric in NOT_FROM_THE_BROKER or asked.label in LABELS_OF_A_SCRAPE:
                continue
            values = known.get((asked.metric, asked.label))
            if values is None or not set(asked.values) - NOT_UNDER_THIS_LOAD <= values:
                wrong.append((purpose, asked))
    assert not wrong


def test_every_event_of_the_load_is_counted_from_zero(live: Live) -> None:
    before = {sample["series"] for sample in _samples(live.before)}
    happened = [
        sample["series"]
        for sample in _samples(live.after)
        if sample["name"].endswith("_total") and float(sample["value"]) > 0
    ]
    assert len(happened) > 30, "the load is not mixed"
    born = [series for series in happened if series not in before]
    assert not [one for one in born if not any(re.match(p, one) for p in UNKNOWN_IN_ADVANCE)]


# ---- Prometheus


def _asked(query: str) -> str:
    """Return a panel's query with its variables filled in, and rarely recorded series as
    expressions.
    """
    for variable, value in _VARIABLES.items():
        query = query.replace(variable, value)
    recorded = {rule["record"]: rule["expr"] for rule in slowly_recorded()}
    return re.sub(
        r"(broker:[\w:]+)(?:\{[^}]*\})?",
        lambda found: f"({recorded[found[1]]})" if found[1] in recorded else found[0],
        query,
    )


def test_every_panel_shows_data(prometheus: Prometheus) -> None:
    empty = set()
    for panel in panels():
        for target in panel["targets"]:
            found = prometheus.query(_asked(target["expr"]))
            if not any(math.isfinite(float(series["value"][1])) for series in found):
                empty.add(f"{panel['title']} {target['refId']}")
    assert empty <= set(MAY_BE_EMPTY)


def test_every_rule_can_be_evaluated(prometheus: Prometheus) -> None:
    for rule in rules():
        prometheus.query(rule["expr"])
    loaded = {rule["name"]: rule for rule in prometheus.rules()}
    assert set(loaded) == {str(rule.get("alert", rule.get("record"))) for rule in rules()}
    assert not [name for name, rule in loaded.items() if rule.get("lastError")]
