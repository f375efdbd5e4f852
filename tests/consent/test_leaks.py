"""Check 17: no code, token or secret in logs, our own URLs, pages, metrics or audit records."""

import logging
from collections.abc import Iterator
from urllib.parse import urlsplit

import prometheus_client
import pytest

from devstack.google_standin import Fault
from tests.consent.harness import (
    ADA,
    CLIENT_SECRET,
    GRACE,
    KEY,
    RETURN_TO,
    SECRET_KEY,
    ConsentWorld,
    query_of,
)


class _Everything(logging.Handler):
    """Keeps log records with everything that a formatter could show."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        formatter = logging.Formatter()
        shown = formatter.format(record)
        extras = {k: v for k, v in vars(record).items() if k not in ("exc_info", "args")}
        self.lines.append(f"{shown} {extras!r}")


@pytest.fixture
def logged() -> Iterator[list[str]]:
    handler, broker = _Everything(), logging.getLogger("broker")
    before = broker.level
    broker.addHandler(handler)
    broker.setLevel(logging.DEBUG)
    yield handler.lines
    broker.removeHandler(handler)
    broker.setLevel(before)


async def test_check_17_no_secret_is_shown_logged_counted_or_audited(
    world: ConsentWorld, logged: list[str]
) -> None:
    browser = await world.browser()
    seen, secrets = [], [CLIENT_SECRET, SECRET_KEY.reveal(), KEY]
    for fault in (
        None,
        Fault.id_token("nonce"),
        Fault.id_token("not_a_jwt"),
        Fault.http(500),
        Fault.not_json(),
        Fault.invalid_grant(),
        Fault.invalid_client(),
        Fault.without("refresh_token"),
    ):
        for return_to in ({}, {"return_to": RETURN_TO}):
            if fault is not None:
                world.google.faults.next("token", fault)
            url = await browser.open(await world.link("user-of-the-product", **return_to))
            callback = await browser.decide(url)
            answer = await browser.get(callback)
            seen += [answer.text, *map(str, answer.headers.multi_items())]
            secrets += [query_of(callback)["code"], query_of(url)["nonce"], query_of(url)["state"]]
    await browser.get(f"{callback}&iss=https://attacker.example")
    secrets += world.google.issued.all()
    metrics = prometheus_client.generate_latest(world.metrics.registry).decode()
    await world.audit.flush()
    audited = [str(row) for row in await world.database.fetch("SELECT * FROM audit_events")]
    assert len(logged) >= 16
    haystack = "\n".join([*logged, *seen, metrics, *audited])
    assert [secret[:12] for secret in secrets if secret in haystack] == []
    assert "user-of-the-product" not in "\n".join([*logged, metrics])


async def test_no_email_is_logged(world: ConsentWorld, logged: list[str]) -> None:
    browser = await world.browser()
    await browser.connect(await world.link(login_hint=ADA), GRACE)
    text = "\n".join(logged)
    assert logged
    assert ADA not in text
    assert GRACE not in text


async def test_return_to_gets_only_the_result(world: ConsentWorld) -> None:
    link = await world.link(return_to=RETURN_TO)
    answer = await (await world.browser()).connect(link)
    location = answer.headers["location"]
    assert set(query_of(location)) == {"tab", "status", "link_id"}
    assert not urlsplit(location).fragment
