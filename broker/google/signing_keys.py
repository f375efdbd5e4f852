"""The public keys that Google signs with, by key id; fetched, kept and renewed within bounds."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import httpx2

from broker.clock import Clock
from broker.google.errors import GoogleUnavailable
from broker.google.http import fetch_json
from broker.google.remembered import Remembered
from broker.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from joserfc.jwk import RSAKey

UNKNOWN_KEY_RETRY = timedelta(seconds=10)
"""How old the keys must be before a token that none of them fits makes them be fetched again."""

_MOST_KEYS = 100
_SHORTEST_MODULUS = 2048
"""Bits; RFC 7518 §3.3. joserfc would only warn of a shorter one."""

_Keys = dict[str | None, "RSAKey"]


class SigningKeys:
    """One key set (RFC 7517), of which only RSA keys for RS256 signatures count."""

    def __init__(
        self,
        locate: Callable[[], Awaitable[str]],
        http: httpx2.AsyncClient,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._locate = locate
        self._http = http
        self._metrics = metrics
        self._keys = Remembered("jwks", self._fetch, clock)

    async def find(self, kid: str | None) -> "RSAKey | None":
        """The key of that id; a token without one may only mean the only key there is.

        None if Google has no such key, which is asked at most once in 10 seconds. Raises
        `GoogleUnavailable` if the keys can't be had.
        """
        keys = await self._keys.get()
        if (found := _pick(keys, kid)) is not None:
            return found
        return await self.find_newest(kid)

    async def find_newest(self, kid: str | None) -> "RSAKey | None":
        """The same, of a key set that is at most 10 seconds old.

        For a signature that the key of that id does not fit: an issuer that lost its keys, as an
        emulator does at each start, may use the id again.
        """
        return _pick(await self._keys.at_most(UNKNOWN_KEY_RETRY), kid)

    async def _fetch(self) -> _Keys:
        document = await fetch_json(self._http, await self._locate(), "jwks", self._metrics)
        keys = read_keys(document)
        if not keys:
            raise GoogleUnavailable("bad_jwks")
        return keys


def read_keys(document: dict[str, Any]) -> _Keys:
    """The usable keys of a key set; those that can't be used are passed over (RFC 7517 §5)."""
    entries = document.get("keys")
    if not isinstance(entries, list):
        return {}
    keys: _Keys = {}
    for entry in entries[:_MOST_KEYS]:
        if _is_for_rs256(entry) and (key := _import(entry)) is not None:
            keys[entry.get("kid")] = key
    return keys


def _pick(keys: _Keys, kid: str | None) -> "RSAKey | None":
    if kid is None and len(keys) == 1:
        return next(iter(keys.values()))
    return keys.get(kid)


def _is_for_rs256(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and entry.get("kty") == "RSA"
        and entry.get("use", "sig") == "sig"
        and entry.get("alg", "RS256") == "RS256"
        and isinstance(entry.get("kid"), str | None)
    )


def _import(entry: dict[str, Any]) -> "RSAKey | None":
    from joserfc.errors import JoseError  # noqa: PLC0415  (see `serve_until`)
    from joserfc.jwk import RSAKey  # noqa: PLC0415

    modulus, exponent = entry.get("n"), entry.get("e")
    if not isinstance(modulus, str) or not isinstance(exponent, str):
        return None
    if len(modulus) * 6 < _SHORTEST_MODULUS:
        return None
    try:
        key = RSAKey.import_key({"kty": "RSA", "n": modulus, "e": exponent})
    except (JoseError, ValueError):
        return None
    return key if key.raw_value.key_size >= _SHORTEST_MODULUS else None
