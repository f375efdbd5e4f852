"""A connection that is lost at the commit: what an event did is on record all the same."""

from tests.security.probes import audited
from tests.security_events.events import post, state
from tests.support.lossy_link import LossyLink
from tests.support.world import ADA, World


async def test_what_an_event_did_is_on_record_though_its_commit_was_lost(
    linked_world: tuple[LossyLink, World],
) -> None:
    link, world = linked_world
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
