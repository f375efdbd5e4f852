"""The broker's Vault token: got, kept alive, replaced. What it is used for is not known here."""

import asyncio
import logging
import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from broker.clock import Clock
from broker.secret import Secret
from broker.secret_sources.source import SourceMisconfigured
from broker.secret_sources.vault_answers import Refusal, VaultToken
from broker.secret_sources.vault_api import VaultApi, VaultRefused
from broker.settings import (
    SecretSetting,
    UnreadableSecretError,
    VaultAppRoleLogin,
    VaultTokenLogin,
)

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

    def __init__(
        self, api: VaultApi, login: VaultTokenLogin | VaultAppRoleLogin, clock: Clock
    ) -> None:
        self._api = api
        self._login = login
        self._clock = clock
        self._lease: _Lease | None = None
        self._changing = asyncio.Lock()
        self._warned_of: Secret | None = None

    @property
    def can_log_in(self) -> bool:
        """Whether a new token can be had at any time, not only where an operator puts one."""
        return isinstance(self._login, VaultAppRoleLogin)

    async def token(self) -> Secret:
        """The token to use now."""
        async with self._changing:
            if self._lease is None or self._lease.has_ended(self._clock.now()):
                self._lease = await self._log_in()
            return self._lease.held.token

    async def maintain(self) -> None:
        """Renew or replace the token if it is time; without I/O if it isn't."""
        async with self._changing:
            lease = self._lease
            if lease is None or not lease.is_due(self._clock.now()):
                return
            self._lease = await self._renewed(lease) or await self._succeeded(lease)

    async def replace(self, refused: Secret) -> Secret | None:
        """A token other than the one that Vault has just refused; None if there is no other."""
        async with self._changing:
            if self._lease is None or self._lease.held.token == refused:
                self._lease = await self._log_in()
            token = self._lease.held.token
            return None if token == refused else token

    async def is_known(self, token: Secret) -> bool:
        """Whether Vault knows the token, to tell a bad one from one that may too little."""
        try:
            await self._api.look_up(token)
        except VaultRefused:
            return False
        return True

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
        if self.can_log_in:
            return await self._log_in()
        token = await self._provided_token()
        if token != lease.held.token:
            return await self._log_in()
        if self._warned_of != token:
            self._warned_of = token
            logger.warning(
                "the Vault token can't be renewed: replace VAULT_TOKEN before it ends, "
                "or use VAULT_AUTH=approle",
                extra={"ends_at": str(lease.ends_at)},
            )
        # From now on only the file is looked at, until the token in it is another.
        return replace(lease, held=replace(lease.held, renewable=False))

    async def _log_in(self) -> _Lease:
        asked_at = self._clock.now()
        if isinstance(self._login, VaultAppRoleLogin):
            return _Lease(await self._log_in_with_approle(self._login), asked_at)
        token = await self._provided_token()
        try:
            return _Lease(await self._api.look_up(token), asked_at)
        except VaultRefused:
            # The token is bad, or its policies don't let it look at itself: using it will tell.
            return _Lease(VaultToken(token, lasts=None, renewable=False), asked_at)

    async def _log_in_with_approle(self, login: VaultAppRoleLogin) -> VaultToken:
        role_id, secret_id = await _read(login.role_id), await _read(login.secret_id)
        try:
            return await self._api.log_in_with_approle(role_id, secret_id)
        except VaultRefused as error:
            refusal = error.refusal
        if refusal is Refusal.BAD_REQUEST:
            raise SourceMisconfigured(
                "Vault refuses VAULT_ROLE_ID or VAULT_SECRET_ID (wrong, expired or used up): "
                "`vault write -f auth/approle/role/<role>/secret-id` makes a new secret id"
            )
        raise SourceMisconfigured(
            "Vault has no AppRole login at auth/approle: `vault auth enable approle`, "
            "or correct VAULT_NAMESPACE"
        )

    async def _provided_token(self) -> Secret:
        assert isinstance(self._login, VaultTokenLogin)  # noqa: S101  (the other kind logs in)
        token = await _read(self._login.token)
        if not re.fullmatch(r"[\x21-\x7e]+", token.reveal()):
            raise SourceMisconfigured("VAULT_TOKEN holds a character that no token has")
        return token


async def _read(setting: SecretSetting) -> Secret:
    try:
        return await asyncio.to_thread(setting.read)
    except UnreadableSecretError as error:
        problem = str(error)
    # Outside of `except`: a file that is not text would be chained along, bytes and all.
    raise SourceMisconfigured(problem)
