"""Vault's API at one address, as the broker uses it, over hvac: with time limits, and with hvac's
and requests' errors mapped once. It decides nothing: which token to use and what to do next is
`vault_server.py`'s and `vault_token.py`'s.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from datetime import timedelta
from threading import Semaphore, Thread
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import hvac
import hvac.exceptions
import requests

from broker.secret import Secret
from broker.secret_sources.source import SourceUnavailable
from broker.secret_sources.vault_answers import (
    Away,
    KvSecret,
    Refusal,
    VaultToken,
    kv_secret,
    meaning_of,
    seal_state,
    token_from_login,
    token_from_lookup,
    token_from_renewal,
    words_for,
)
from broker.settings import is_loopback_host

CONNECT_LIMIT = timedelta(seconds=3)
ANSWER_LIMIT = timedelta(seconds=5)

THREADS = 3
"""One each for reading the secret, for looking after the token, and for asking how Vault is."""


class VaultRefused(Exception):  # noqa: N818  (an answer, not a fault)
    """Vault answered with a definite no. Only what kind of no is kept of the answer."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.value)
        self.refusal = refusal


_Answer = TypeVar("_Answer")
_Request = Callable[[hvac.Client], object]


class VaultApi:
    """Asks one address.

    Every method raises `SourceUnavailable` without a definite answer, `VaultRefused` when it is no.
    Nothing is chained to either: hvac's and requests' exceptions carry URLs, headers and bodies,
    and those hold tokens and secret ids.
    """

    def __init__(
        self,
        address: str,
        namespace: str | None,
        *,
        connect_limit: timedelta = CONNECT_LIMIT,
        answer_limit: timedelta = ANSWER_LIMIT,
    ) -> None:
        self._address = address
        self.name = _without_credentials(address)
        self._namespace = namespace
        self._limits = (connect_limit.total_seconds(), answer_limit.total_seconds())
        self._free_threads = Semaphore(THREADS)
        self._is_closed = False

    async def read_kv(self, token: Secret, *, mount: str, path: str) -> KvSecret:
        """The latest version of a KV v2 secret."""

        def request(vault: hvac.Client) -> object:
            return vault.secrets.kv.v2.read_secret_version(
                path=path, mount_point=mount, raise_on_deleted_version=True
            )

        return await self._ask(request, kv_secret, token=token)

    async def log_in_with_approle(self, role_id: Secret, secret_id: Secret) -> VaultToken:
        """A new token for an AppRole."""

        def request(vault: hvac.Client) -> object:
            return vault.auth.approle.login(role_id.reveal(), secret_id.reveal(), use_token=False)

        return await self._ask(request, token_from_login)

    async def log_in_with_jwt(
        self, method: Literal["kubernetes", "jwt"], role: str, jwt: Secret
    ) -> VaultToken:
        """A new token for whom a JWT speaks of."""

        def request(vault: hvac.Client) -> object:
            if method == "kubernetes":
                return vault.auth.kubernetes.login(role, jwt.reveal(), use_token=False)
            return vault.auth.jwt.jwt_login(role, jwt.reveal(), use_token=False)

        return await self._ask(request, token_from_login)

    async def look_up(self, token: Secret) -> VaultToken:
        """What is left of a token."""

        def request(vault: hvac.Client) -> object:
            return vault.auth.token.lookup_self()

        return await self._ask(request, token_from_lookup, token=token)

    async def renew(self, token: Secret) -> VaultToken:
        """The same token, living longer; not necessarily as long as before."""

        def request(vault: hvac.Client) -> object:
            return vault.auth.token.renew_self()

        return await self._ask(request, token_from_renewal, token=token)

    async def ping(self) -> None:
        """Return if it is up and unsealed. Needs no token."""

        def request(vault: hvac.Client) -> object:
            vault.adapter.namespace = None  # The path exists in the root namespace only.
            return vault.sys.read_seal_status()

        await self._ask(request, seal_state)

    def close(self) -> None:
        """Ask nothing more; what is being asked runs into its limits."""
        self._is_closed = True

    async def _ask(
        self,
        request: _Request,
        parse: Callable[[Any], _Answer | Away],
        *,
        token: Secret | None = None,
    ) -> _Answer:
        """hvac blocks, so each question has a thread. There the limit is for each piece of an
        answer; here it is for the whole, so that an answer in drops holds nothing but its thread.
        """
        if self._is_closed:
            raise SourceUnavailable(f"{self.name} is no longer asked")
        answer: _Answer | Refusal | Away = Away("does not answer in time")
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits[1]):
                answer = await self._in_thread(lambda: self._ask_now(request, parse, token))
        if isinstance(answer, Refusal):
            raise VaultRefused(answer)
        if isinstance(answer, Away):
            raise SourceUnavailable(f"{self.name} {answer.reason}")
        return answer

    async def _in_thread(self, work: Callable[[], _Answer]) -> _Answer:
        """Not an executor's thread: while Vault hangs, nobody else is to wait for one, and the
        process need not wait for an answer that never ends.
        """
        outcome: Future[_Answer] = Future()

        def run() -> None:
            if not self._free_threads.acquire(timeout=self._limits[1]):
                return
            try:
                if outcome.set_running_or_notify_cancel():
                    outcome.set_result(work())
            except BaseException as error:
                outcome.set_exception(error)
            finally:
                self._free_threads.release()

        Thread(target=run, name="vault", daemon=True).start()
        return await asyncio.wrap_future(outcome)

    def _ask_now(
        self,
        request: _Request,
        parse: Callable[[Any], _Answer | Away],
        token: Secret | None,
    ) -> _Answer | Refusal | Away:
        vault = hvac.Client(
            url=self._address,
            # Not None: hvac would look for a token in the environment and in the home folder.
            token=token.reveal() if token else "",
            namespace=self._namespace,
            timeout=self._limits,
            # A redirect would take the token to a host that nobody configured.
            allow_redirects=False,
        )
        if is_loopback_host(urlsplit(self._address).hostname):
            vault.session.trust_env = False  # A proxy has no way to this machine's loopback.
        try:
            answer = request(vault)
            if isinstance(answer, requests.Response) and answer.is_redirect:
                return Away("redirects elsewhere (set VAULT_ADDR to where it answers itself)")
            return parse(answer)
        except hvac.exceptions.VaultError as error:
            return meaning_of(error)
        except (OSError, UnicodeError) as error:  # requests' own errors are OSErrors.
            return Away(words_for(error))
        except (AttributeError, TypeError, ValueError, LookupError, OverflowError):
            # hvac itself stumbles over answers that are JSON, but not Vault's.
            return Away("answers, but not as Vault does (is VAULT_ADDR right?)")
        finally:
            vault.adapter.close()


def _without_credentials(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
