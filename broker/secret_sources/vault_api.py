"""Vault's API at one address: hvac with time limits, and its and requests' errors mapped once.

It decides nothing: `vault_token.py` says which token to use, `vault.py` what a refusal means.
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from threading import Semaphore, Thread
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import hvac
import hvac.exceptions
import requests

from broker.secret import Secret
from broker.secret_sources.source import SourceUnavailable
from broker.settings import is_loopback_host

CONNECT_LIMIT = timedelta(seconds=3)
ANSWER_LIMIT = timedelta(seconds=5)

THREADS = 3
"""One each to read the secret, to maintain the token, and to check Vault's health."""

_MAX_LIFETIME = timedelta(days=100 * 365)
"""The sum of the present and a lifetime must be a date. Vault's own longest is three times this."""


class VaultRefusal(Enum):
    """The kinds of refusals; nothing else is kept of Vault's answer."""

    DENIED = "denied"
    NOTHING_THERE = "nothing there"
    VERSION_DELETED = "version deleted"
    NO_SUCH_MOUNT = "no such mount"
    NO_SUCH_NAMESPACE = "no such namespace"
    NO_SUCH_ROLE = "no such role"
    BAD_REQUEST = "bad request"


@dataclass(frozen=True, slots=True)
class VaultToken:
    """A token as Vault issued or described it."""

    token: Secret
    lifetime: timedelta | None
    """From the answer on; None: for ever."""
    renewable: bool


@dataclass(frozen=True, slots=True)
class KvSecret:
    """One version of a KV v2 secret. The values of the fields are secrets."""

    fields: Mapping[str, object] = field(repr=False)
    version: int


class _NotReadyError(Exception):
    """The server answered as Vault does, but is of no use now; the message continues a sentence."""


_Answer = TypeVar("_Answer")
_Request = Callable[[hvac.Client], object]


class VaultApi:
    """The requests that the broker makes to one address.

    Every method raises `SourceUnavailable` without a definite answer. Nothing is chained to it:
    the exceptions of hvac and requests hold URLs, headers and bodies, and those hold tokens and
    secret ids.
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

    async def read_kv(self, token: Secret, *, mount: str, path: str) -> KvSecret | VaultRefusal:
        """Return the latest version of a KV v2 secret."""
        return await self._call(
            lambda vault: vault.secrets.kv.v2.read_secret_version(
                path=path, mount_point=mount, raise_on_deleted_version=True
            ),
            _kv_secret,
            token=token,
        )

    async def log_in_with_approle(
        self, role_id: Secret, secret_id: Secret
    ) -> VaultToken | VaultRefusal:
        """Return a new token for an AppRole."""
        return await self._call(
            lambda vault: vault.auth.approle.login(
                role_id.reveal(), secret_id.reveal(), use_token=False
            ),
            _token_from_login,
        )

    async def log_in_with_jwt(
        self, method: Literal["kubernetes", "jwt"], role: str, jwt: Secret
    ) -> VaultToken | VaultRefusal:
        """Return a new token for the JWT's subject."""

        def request(vault: hvac.Client) -> object:
            if method == "kubernetes":
                return vault.auth.kubernetes.login(role, jwt.reveal(), use_token=False)
            return vault.auth.jwt.jwt_login(role, jwt.reveal(), use_token=False)

        return await self._call(request, _token_from_login)

    async def look_up(self, token: Secret) -> VaultToken | VaultRefusal:
        """Return the token with its remaining lifetime."""
        return await self._call(
            lambda vault: vault.auth.token.lookup_self(), _token_from_lookup, token=token
        )

    async def renew(self, token: Secret) -> VaultToken | VaultRefusal:
        """Return the same token with a longer lifetime, which may be shorter than the last one."""
        return await self._call(
            lambda vault: vault.auth.token.renew_self(), _token_from_renewal, token=token
        )

    async def ping(self) -> None:
        """Check that the server is up and unsealed. Needs no token."""

        def request(vault: hvac.Client) -> object:
            vault.adapter.namespace = None  # The path exists in the root namespace only.
            return vault.sys.read_seal_status()

        if isinstance(await self._call(request, _check_seal_status), VaultRefusal):
            raise SourceUnavailable(f"{self.name} refuses to say whether it is sealed")

    def close(self) -> None:
        """Send no further request; one that is running ends at its time limit."""
        self._is_closed = True

    async def _call(
        self,
        request: _Request,
        parse: Callable[[Any], _Answer],
        *,
        token: Secret | None = None,
    ) -> _Answer | VaultRefusal:
        """Run one request in a thread, because hvac blocks.

        The limit inside the thread is for each piece of an answer; the one here is for the whole,
        so that an answer in drops holds nothing but its thread.
        """
        if self._is_closed:
            raise SourceUnavailable(f"{self.name} is closed")
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits[1]):
                return await self._in_thread(lambda: self._call_blocking(request, parse, token))
        raise SourceUnavailable(f"{self.name} does not answer in time")

    async def _in_thread(self, work: Callable[[], _Answer]) -> _Answer:
        """Run in a daemon thread, not in an executor's.

        While Vault hangs, it takes no thread from other work, and the process can end without
        waiting for an answer that never ends.
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

    def _call_blocking(
        self, request: _Request, parse: Callable[[Any], _Answer], token: Secret | None
    ) -> _Answer | VaultRefusal:
        failure: VaultRefusal | str
        vault = self._client(token)
        try:
            return parse(_no_redirect(request(vault)))
        except hvac.exceptions.VaultError as error:
            failure = _vault_failure(error)
        except (OSError, UnicodeError) as error:  # The errors of requests are OSErrors.
            failure = _transport_failure(error)
        except _NotReadyError as error:
            failure = str(error)
        except (AttributeError, TypeError, ValueError, LookupError, OverflowError):
            # hvac itself raises these for JSON that is not Vault's.
            failure = "answers, but not as Vault does (is VAULT_ADDR right?)"
        finally:
            vault.adapter.close()
        if isinstance(failure, VaultRefusal):
            return failure
        # Outside of `except`, so that nothing is chained.
        raise SourceUnavailable(f"{self.name} {failure}")

    def _client(self, token: Secret | None) -> hvac.Client:
        vault = hvac.Client(
            url=self._address,
            # Not None: hvac would look for a token in the environment and in the home folder.
            token=token.reveal() if token else "",
            namespace=self._namespace,
            timeout=self._limits,
            # A redirect would take the token to a host that is not configured.
            allow_redirects=False,
        )
        if is_loopback_host(urlsplit(self._address).hostname):
            vault.session.trust_env = False  # A proxy cannot reach this machine's loopback.
        return vault


def _without_credentials(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


# Parsers of answers. Each raises TypeError, ValueError or LookupError for one that is not Vault's.


def _no_redirect(answer: object) -> object:
    if isinstance(answer, requests.Response) and answer.is_redirect:
        raise _NotReadyError("redirects elsewhere (set VAULT_ADDR to the target itself)")
    return answer


def _kv_secret(answer: Any) -> KvSecret:
    fields = answer["data"]["data"]
    if not isinstance(fields, dict):
        raise TypeError("not a KV v2 secret")
    return KvSecret(fields, int(answer["data"]["metadata"]["version"]))


def _token_from_login(answer: Any) -> VaultToken:
    auth = answer["auth"]
    lifetime = _lifetime(auth["lease_duration"]) or None
    return VaultToken(_token(auth["client_token"]), lifetime, bool(auth["renewable"]))


def _token_from_renewal(answer: Any) -> VaultToken:
    auth = answer["auth"]
    # Zero is not for ever here: a token at the end of its maximum life is renewed by zero.
    lifetime = _lifetime(auth["lease_duration"])
    return VaultToken(_token(auth["client_token"]), lifetime, bool(auth["renewable"]))


def _token_from_lookup(answer: Any) -> VaultToken:
    data = answer["data"]
    lifetime = None if data.get("expire_time") is None else _lifetime(data["ttl"])
    return VaultToken(_token(data["id"]), lifetime, bool(data.get("renewable")))


def _token(text: Any) -> Secret:
    if not isinstance(text, str) or not text:
        raise TypeError("not a token")  # For example while a login waits for a second factor.
    return Secret(text)


def _lifetime(seconds: Any) -> timedelta:
    return min(timedelta(seconds=int(seconds)), _MAX_LIFETIME)


def _check_seal_status(answer: Any) -> None:
    if not answer["initialized"]:
        raise _NotReadyError("is not initialised")
    if answer["sealed"]:
        raise _NotReadyError("is sealed")


# Failures: a refusal that every address of the cluster would give, or what is wrong with this one,
# as the end of a sentence. Of an error only its kind is kept: text, URL and body may show secrets.


def _vault_failure(error: hvac.exceptions.VaultError) -> VaultRefusal | str:
    text = str(error.text).lower()
    match error:
        case hvac.exceptions.Forbidden() | hvac.exceptions.Unauthorized():
            return VaultRefusal.DENIED
        case hvac.exceptions.InvalidPath():
            return _what_is_missing(error.json, text)
        case hvac.exceptions.InvalidRequest():
            return _what_is_bad(text)
        case hvac.exceptions.InternalServerError() if "cannot renew" in text:
            return VaultRefusal.BAD_REQUEST  # The token is past its maximum life.
        case hvac.exceptions.VaultDown():
            return "is sealed" if "sealed" in text else "is not ready"
        case hvac.exceptions.VaultNotInitialized():
            return "is not initialised"
        case hvac.exceptions.RateLimitExceeded():
            return "limits the rate of requests"
    return "fails with an internal error"


def _what_is_bad(text: str) -> VaultRefusal | str:
    if "to an https server" in text:
        return "speaks https: correct VAULT_ADDR"
    if "upgrading from non-versioned" in text:
        return "is still upgrading its KV mount"
    if re.search("invalid role name|role .* could not be found", text):
        return VaultRefusal.NO_SUCH_ROLE
    return VaultRefusal.BAD_REQUEST


def _what_is_missing(document: object, text: str) -> VaultRefusal:
    if isinstance(document, dict) and isinstance(document.get("data"), dict):
        return VaultRefusal.VERSION_DELETED  # Metadata without data: the version existed once.
    if "namespace not found" in text:
        return VaultRefusal.NO_SUCH_NAMESPACE
    if "no handler for route" in text:
        return VaultRefusal.NO_SUCH_MOUNT
    return VaultRefusal.NOTHING_THERE


def _transport_failure(error: Exception) -> str:
    match error:
        case requests.exceptions.SSLError():
            return "fails TLS (set VAULT_CACERT if its certificate is of your own CA)"
        case requests.exceptions.Timeout():
            return "does not answer in time"
        case requests.exceptions.InvalidHeader() | UnicodeError():
            return "can't be asked: VAULT_TOKEN or VAULT_NAMESPACE has an invalid character"
        case requests.exceptions.ConnectionError():
            return "can't be reached"
        case requests.exceptions.RequestException():
            return "can't be asked (is VAULT_ADDR right?)"
    return "can't be asked: the CA file that VAULT_CACERT names can't be read"
