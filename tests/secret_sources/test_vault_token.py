"""Renewing and replacing the Vault token."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import hvac.exceptions
import pytest

from broker.clock import Clock, SystemClock
from broker.secret import Secret
from broker.secret_sources.source import SourceMisconfigured
from broker.secret_sources.vault_api import VaultApi
from broker.secret_sources.vault_token import TokenKeeper
from broker.settings import ConfiguredSecret, VaultAppRoleLogin, VaultLogin, VaultTokenLogin
from tests.secret_sources.client_watch import eventually, logged_events
from tests.support.clock import ManualClock
from tests.support.openbao import VaultPlace, approle_login, as_root, token_login

HOUR = timedelta(hours=1)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def keeper_of(place: VaultPlace, login: VaultLogin, clock: Clock) -> TokenKeeper:
    return TokenKeeper(VaultApi(place.server.address, None), login, clock)


def looked_up(place: VaultPlace, token: Secret) -> dict[str, Any]:
    with as_root(place.server) as vault:
        data: dict[str, Any] = vault.auth.token.lookup(token.reveal())["data"]
        return data


def was_renewed(place: VaultPlace, token: Secret) -> bool:
    return "last_renewal" in looked_up(place, token)


def is_past_renewing(place: VaultPlace, token: Secret) -> bool:
    with as_root(place.server) as vault:
        try:
            vault.auth.token.renew(token.reveal())
        except hvac.exceptions.VaultError:
            return True
    return False


async def maintained(keeper: TokenKeeper) -> AsyncIterator[Secret]:
    """Yield the token after each call of `maintain`."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        await keeper.maintain()
        yield await keeper.token()
        await asyncio.sleep(0.02)
    pytest.fail("it did not happen within 30 s")


async def test_a_token_is_not_renewed_before_two_thirds_of_its_lifetime(
    place: VaultPlace, clock: ManualClock
) -> None:
    token = place.create_token(ttl=HOUR)
    keeper = keeper_of(place, token_login(token), clock)
    await keeper.token()
    clock.advance(timedelta(minutes=39))
    await keeper.maintain()
    assert not was_renewed(place, token)


async def test_a_token_is_renewed_after_two_thirds_of_its_lifetime(
    place: VaultPlace, clock: ManualClock
) -> None:
    token = place.create_token(ttl=HOUR)
    keeper = keeper_of(place, token_login(token), clock)
    await keeper.token()
    clock.advance(timedelta(minutes=41))
    await keeper.maintain()
    assert was_renewed(place, token)


async def test_the_token_of_an_approle_is_renewed_and_not_replaced(
    place: VaultPlace, clock: ManualClock
) -> None:
    keeper = keeper_of(place, approle_login(place.create_approle(ttl=HOUR)), clock)
    token = await keeper.token()
    clock.advance(timedelta(minutes=41))
    await keeper.maintain()
    assert was_renewed(place, token)
    assert await keeper.token() == token


async def test_a_renewed_token_outlives_its_first_lease(place: VaultPlace) -> None:
    token = place.create_token(ttl=timedelta(seconds=4))
    keeper = keeper_of(place, token_login(token), SystemClock())
    await keeper.token()
    renewals = set()
    async for _ in maintained(keeper):
        renewals.add(looked_up(place, token).get("last_renewal"))  # Raises if it has ended.
        if len(renewals - {None}) == 2:
            break


async def test_an_approle_logs_in_again_when_its_token_nears_its_maximum_life(
    place: VaultPlace,
) -> None:
    life = timedelta(seconds=6)
    keeper = keeper_of(
        place, approle_login(place.create_approle(ttl=life, max_ttl=life)), SystemClock()
    )
    first = await keeper.token()
    async for token in maintained(keeper):
        looked_up(place, token)  # Raises if it has ended.
        if token != first:
            break
    looked_up(place, first)  # Still good: the new one came before the old one's end.


async def test_an_approle_logs_in_again_after_the_maximum_life(
    place: VaultPlace, clock: ManualClock
) -> None:
    second = timedelta(seconds=1)
    keeper = keeper_of(
        place, approle_login(place.create_approle(ttl=second, max_ttl=second)), clock
    )
    first = await keeper.token()
    clock.advance(second * 0.9)
    await eventually(lambda: is_past_renewing(place, first))
    await keeper.maintain()
    assert await keeper.token() != first


async def test_an_approle_logs_in_again_after_its_token_has_expired(
    place: VaultPlace, clock: ManualClock
) -> None:
    keeper = keeper_of(place, approle_login(place.create_approle(ttl=HOUR)), clock)
    first = await keeper.token()
    clock.advance(timedelta(hours=2))
    assert await keeper.token() != first


async def test_a_token_that_cannot_be_renewed_is_logged_once(
    place: VaultPlace, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    token = place.create_token(ttl=HOUR, renewable=False)
    keeper = keeper_of(place, token_login(token), clock)
    await keeper.token()
    clock.advance(timedelta(minutes=41))
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        await keeper.maintain()
        await keeper.maintain()
    assert logged_events(caplog) == ["vault_token_not_renewable"]
    assert "replace VAULT_TOKEN before it expires" in caplog.text


async def test_a_token_near_its_expiry_is_replaced_by_the_next_one_in_its_file(
    place: VaultPlace, clock: ManualClock, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(place.create_token(ttl=HOUR, renewable=False).reveal())
    login = VaultTokenLogin(ConfiguredSecret("VAULT_TOKEN", path=file))
    keeper = keeper_of(place, login, clock)
    await keeper.token()
    clock.advance(timedelta(minutes=41))
    await keeper.maintain()

    following = place.create_token(ttl=HOUR)
    file.write_text(following.reveal())
    await keeper.maintain()

    assert await keeper.token() == following


async def test_a_root_token_needs_no_renewal(place: VaultPlace, clock: ManualClock) -> None:
    keeper = keeper_of(place, token_login(place.server.root_token), clock)
    await keeper.token()
    clock.advance(timedelta(days=1000))
    await keeper.maintain()
    assert await keeper.token() == place.server.root_token


async def test_a_failed_login_leaves_the_old_token_in_use(
    place: VaultPlace, clock: ManualClock, tmp_path: Path
) -> None:
    role = place.create_approle(ttl=HOUR)
    (tmp_path / "secret-id").write_text(role.secret_id.reveal())
    login = VaultAppRoleLogin(
        role_id=ConfiguredSecret("VAULT_ROLE_ID", value=role.role_id),
        secret_id=ConfiguredSecret("VAULT_SECRET_ID", path=tmp_path / "secret-id"),
    )
    keeper = keeper_of(place, login, clock)
    token = await keeper.token()
    with as_root(place.server) as vault:
        vault.auth.token.revoke(token.reveal())  # So that renewing fails, too.
    (tmp_path / "secret-id").write_text("wrong")
    clock.advance(timedelta(minutes=41))

    with pytest.raises(SourceMisconfigured, match="VAULT_SECRET_ID"):
        await keeper.maintain()

    assert await keeper.token() == token
