"""The broker's Vault token: got, kept alive, replaced. What it is used for is not known here."""

import asyncio
import logging
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from broker.clock import Clock
from broker.secret import Secret
from broker.secret_sources.vault_answers import VaultToken
from broker.secret_sources.vault_api import VaultApi, VaultRefused
from broker.secret_sources.vault_login import log_in, provided_token
from broker.settings import VaultLogin, VaultTokenLogin

logger = logging.getLogger(__name__)

_RENEW_AFTER = 2 / 3
"""The part of its life after which a token is renewed."""
_WORTH_RENEWING = 1 / 10
"""A renewal that wins less than this part of the last one has met the token's maximum life."""
_ROUNDING = timedelta(seconds=1)
"""Vault tells what is left in whole seconds, so that less than this may be nothing at all."""


@dataclass(frozen=True, slots=True)
class _Lease:
    """A token, and when it ends."""

    held: VaultToken
    since: datetime

    @property
    def ends_at(self) -> datetime | None:
        return None if self.held.lasts is None else self.since + self.held.lasts

    def is_due(self, now: datetime) -> bool:
        """Whether the time to renew has come."""
        if self.held.lasts is None:
            return False
        return now >= self.since + self.held.lasts * _RENEW_AFTER

    def has_ended(self, now: datetime) -> bool:
        return self.ends_at is not None and now >= self.ends_at


class TokenKeeper:
    """Logs in when first asked; renews after 2/3 of the token's life; logs in again when renewing
    wins nothing.

    Its methods raise `SourceUnavailable` and `SourceMisconfigured`. One login or renewal runs at a
    time; whoever waited for it takes its outcome.
    """

    def __init__(self, api: VaultApi, login: VaultLogin, clock: Clock) -> None:
        self._api = api
        self._login = login
        self._clock = clock
        self._lease: _Lease | None = None
        self._changing = asyncio.Lock()
        self._warned_of: Secret | None = None

    async def token(self) -> Secret:
        """The token to use now."""
        async with self._changing:
            if self._lease is None or self._lease.has_ended(self._clock.now()):
                self._lease = await self._log_in()
            return self._lease.held.token

    async def maintain(self) -> None:
        """Renew or replace the token if it is time; without I/O if it isn't."""
        async with self._changing:
            lease, now = self._lease, self._clock.now()
            if lease is None or not lease.is_due(now):
                return
            if lease.has_ended(now):
                # Of an address that has been away for so long, or that nobody asks any more.
                self._lease = None
                return
            self._lease = await self._renewed(lease) or await self._succeeded(lease)

    async def replace(self, refused: Secret) -> Secret | None:
        """A token other than the one that Vault has just refused; None if there is no other."""
        async with self._changing:
            if self._lease is None or self._lease.held.token == refused:
                self._lease = await self._log_in()
            token = self._lease.held.token
            return None if token == refused else token

    async def _renewed(self, lease: _Lease) -> _Lease | None:
        """The token living longer; None if it can't."""
        if not lease.held.renewable:
            return None
        asked_at = self._clock.now()
        try:
            renewed = _Lease(await self._api.renew(lease.held.token), asked_at)
        except VaultRefused:
            return None
        if lease.held.lasts is None or lease.ends_at is None or renewed.ends_at is None:
            return renewed
        worthwhile = max(lease.held.lasts * _WORTH_RENEWING, _ROUNDING)
        return renewed if renewed.ends_at - lease.ends_at >= worthwhile else None

    async def _succeeded(self, lease: _Lease) -> _Lease:
        """The token that follows one past renewing; the same one if none has been provided."""
        if not isinstance(self._login, VaultTokenLogin):
            return await self._log_in()
        token = await provided_token(self._login)
        if token != lease.held.token:
            return await self._log_in()
        if self._warned_of != token:
            self._warned_of = token
            logger.warning(
                "the Vault token can't be renewed: replace VAULT_TOKEN before it ends, "
                "or use another VAULT_AUTH",
                extra={"ends_at": str(lease.ends_at)},
            )
        # From now on only the file is looked at, until the token in it is another.
        return replace(lease, held=replace(lease.held, renewable=False))

    async def _log_in(self) -> _Lease:
        asked_at = self._clock.now()
        return _Lease(await log_in(self._api, self._login, self._clock), asked_at)
