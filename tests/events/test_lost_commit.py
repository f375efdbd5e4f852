"""A connection that is lost at the commit: what an event did is on record all the same."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.devstack.google_standin import GoogleStandin
from tests.events.events import post, state
from tests.security.probes import audited
from tests.support.clock import ManualClock
from tests.support.lossy_link import LossyLink, lossy_link
from tests.support.world import ADA, World, open_world


@pytest.fixture
async def linked(
    tmp_path: Path, database_url: str, standin: GoogleStandin, clock: ManualClock
) -> AsyncIterator[tuple[LossyLink, World]]:
    async with (
        lossy_link(database_url) as (link, address),
        open_world(tmp_path, address, standin, clock) as world,
    ):
        yield link, world


async def test_what_an_event_did_is_on_record_though_its_commit_was_lost(
    linked: tuple[LossyLink, World],
) -> None:
    link, world = linked
    await world.connect()
    link.lose_answer_to(b"INSERT INTO security_event_tokens", b"COMMIT")
    token = world.standin.security_event("tokens-revoked", ADA)
    assert (await post(world, token)).status_code == 503
    assert link.has_lost_answer
    (record,) = await audited(world, "security_event", "tokens-revoked:erased:unsettled")
    assert (record["user_id"], record["account_sub"]) == ("user-1", world.standin.account(ADA).sub)
    assert (await post(world, token)).status_code == 202
    assert (await state(world))[0][2] == "google_tokens_revoked"
    assert await audited(world, "security_event", "tokens-revoked:duplicate")
