"""What counters start with, and what gauges read from the parts."""

import ast
import re

import yaml

from broker.app.first_values import (
    REFRESH_OUTCOMES,
    TOKEN_OUTCOMES,
    WEBHOOK_TYPES,
)
from broker.callers.keys import new_key
from devstack.postgres import EmbeddedPostgres
from tests.docs.documents import ROOT, text_of
from tests.support.outages import database_away
from tests.support.waiting import eventually
from tests.support.world import World, stanza, write_callers


async def _scraped(world: World) -> str:
    return (await world.ops.get("/metrics")).text


async def test_what_is_counted_for_a_caller_starts_at_zero(world: World) -> None:
    text = await _scraped(world)
    (name,) = yaml.safe_load(world.callers_file.read_text())["callers"]
    for outcome in TOKEN_OUTCOMES:
        line = f'broker_token_requests_total{{caller="{name}",outcome="{outcome}"}} 0.0'
        assert line in text.splitlines()


async def test_a_caller_that_is_added_later_starts_at_zero_as_well(world: World) -> None:
    write_callers(world.callers_file, {"late": stanza(new_key())})
    await eventually(lambda: _has_late(world))


async def _has_late(world: World) -> bool:
    return 'broker_token_requests_total{caller="late",outcome="ok"} 0.0' in await _scraped(world)


def test_every_outcome_of_a_refresh_is_known_in_advance() -> None:
    noted = {
        str(node.args[1].value)
        for node in ast.walk(ast.parse(text_of("broker/tokens/refresh/refresher.py")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "_note"
        and isinstance(node.args[1], ast.Constant)
    }
    assert noted == set(REFRESH_OUTCOMES)


def test_every_type_of_webhook_is_known_in_advance() -> None:
    steps = (ROOT / "broker/database/migrations").glob("*.sql")
    text = "".join(step.read_text(encoding="utf-8") for step in steps)
    assert set(re.findall(r"'(grant\.[a-z_]+)'", text)) == set(WEBHOOK_TYPES)


async def test_connections_to_postgresql_are_shown(world: World) -> None:
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


async def test_an_outage_of_postgresql_is_shown(world: World, postgres: EmbeddedPostgres) -> None:
    async with database_away(world, postgres):
        await eventually(lambda: _has_storage_down(world))


async def _has_storage_down(world: World) -> bool:
    return "broker_storage_up 0.0" in await _scraped(world)
