"""What a grant says that it holds, its refresh token can fetch, however it came to be."""

from datetime import timedelta

from tests.support.world import ADA, CALENDAR, CALENDAR_READONLY, World


async def test_scopes_added_later_can_be_refreshed(world: World) -> None:
    await world.connect(scopes=[CALENDAR_READONLY])
    await world.connect(scopes=[CALENDAR], login_hint=ADA)
    world.clock.advance(timedelta(hours=1))
    for scope in (CALENDAR, CALENDAR_READONLY):
        answer = await world.token(scope=scope)
        assert (answer.status_code, answer.json().get("scope")) == (200, scope)
