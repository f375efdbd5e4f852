"""Counters that start at 0, and gauges that are read from their parts."""

import ast
import re

import yaml

from broker.app.metric_setup import (
    REFRESH_OUTCOMES,
    TOKEN_OUTCOMES,
    WEBHOOK_TYPES,
)
from broker.callers.keys import new_key
from devstack.postgres import EmbeddedPostgres
from tests.docs.documents import ROOT, text_of
from tests.support.outages import database_unavailable
from tests.support.waiting import eventually
from tests.support.world import World, stanza, write_callers


async def _scraped(world: World) -> str:
    return (await world.ops.get("/metrics")).text


async def test_the_counters_of_a_caller_start_at_zero(world: World) -> None:
    text = await _scraped(world)
    (name,) = yaml.safe_load(world.callers_file.read_text())["callers"]
    for outcome in TOKEN_OUTCOMES:
        line = f'broker_token_requests_total{{caller="{name}",outcome="{outcome}"}} 0.0'
        assert line in text.splitlines()


async def test_the_counters_of_a_caller_that_is_added_later_start_at_zero(world: World) -> None:
    write_callers(world.callers_file, {"late": stanza(new_key())})
    await eventually(lambda: _has_late(world))


async def _has_late(world: World) -> bool:
    return 'broker_token_requests_total{caller="late",outcome="ok"} 0.0' in await _scraped(world)


def test_every_outcome_of_a_refresh_starts_at_zero() -> None:
    recorded = {
        str(node.args[1].value)
        for node in ast.walk(ast.parse(text_of("broker/tokens/refresh/google_refresh.py")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "self._records.record"
        and isinstance(node.args[1], ast.Constant)
    }
    assert recorded == set(REFRESH_OUTCOMES)


def test_every_type_of_webhook_starts_at_zero() -> None:
    steps = (ROOT / "broker/database/migrations").glob("*.sql")
    text = "".join(step.read_text(encoding="utf-8") for step in steps)
    assert set(re.findall(r"'(grant\.[a-z_]+)'", text)) == set(WEBHOOK_TYPES)


async def test_gauges_show_the_connections_to_postgresql(world: World) -> None:
    text = await _scraped(world)
    values = {
        name: float(value)
        for name, value in re.findall(r"^(broker_storage_\S+) (\S+)$", text, re.MULTILINE)
    }
    assert values["broker_storage_up"] == 1
    assert values["broker_storage_connections_max"] == 25
    open_ones = sum(
        values[f'broker_storage_connections{{state="{state}"}}'] for state in ("in_use", "idle")
    )
    assert 1 <= open_ones <= 25
    assert values['broker_storage_waiting{limit="pool"}'] == 0
    assert values['broker_storage_waiting{limit="share"}'] == 0


async def test_a_gauge_shows_an_outage_of_postgresql(
    world: World, postgres: EmbeddedPostgres
) -> None:
    async with database_unavailable(world, postgres):
        await eventually(lambda: _has_storage_down(world))


async def _has_storage_down(world: World) -> bool:
    return "broker_storage_up 0.0" in await _scraped(world)
