"""Callers without a key: a JWT of a trusted issuer proves which workload the caller is.

Reads the unverified claims first, so that a JWT that cannot be a caller's costs neither a signature
verification nor a request to an issuer.
"""

from hashlib import sha256

from broker.callers.model import Caller
from broker.callers.registry import MAX_CREDENTIAL_BYTES, CallerRegistry
from broker.issuers.model import JwtRefused
from broker.issuers.trusted import JwtRefusalLog, TrustedIssuers
from broker.issuers.unverified_jwt import (
    UnverifiedJwt,
    has_audience,
    read_unverified,
    unverified_issuer,
    unverified_subject,
)


class WorkloadIdentities:
    """Finds the caller that a JWT proves, and remembers it in the registry."""

    def __init__(
        self, registry: CallerRegistry, issuers: TrustedIssuers, refusals: JwtRefusalLog
    ) -> None:
        self._registry = registry
        self._issuers = issuers
        self._refusals = refusals

    async def identify(self, token: bytes) -> Caller | None:
        """Return the caller that a JWT proves; None if any check fails.

        Raises `IssuerUnavailable` if the JWT may be a caller's, but the keys to verify it are
        unavailable.
        """
        digest = sha256(token).digest()
        known = self._registry.verified.find(digest)
        if known is not None:
            return known
        try:
            return await self._verified(
                read_unverified(token, at_most=MAX_CREDENTIAL_BYTES), digest
            )
        except JwtRefused as refusal:
            self._refusals.record("caller", refusal)
            return None

    async def _verified(self, jwt: UnverifiedJwt, digest: bytes) -> Caller:
        while True:
            generation = self._registry.generation
            caller = self._claimed(jwt)
            verified = await self._issuers.verify(jwt)
            if generation != self._registry.generation:
                # The callers, or what the issuer is trusted with, may have changed meanwhile.
                continue
            self._registry.verified.remember(
                digest, caller, expires_at=verified.expires_at, key=verified.key
            )
            return caller

    def _claimed(self, jwt: UnverifiedJwt) -> Caller:
        """Return the only caller whose workload the claims name. Raises `JwtRefused`."""
        callers = self._registry.workloads(unverified_issuer(jwt), unverified_subject(jwt))
        if not callers:
            raise JwtRefused("no_such_workload")
        if "cnf" in jwt.claims:
            # Valid only with a proof of a key (RFC 7800), which no caller can give here.
            raise JwtRefused("bound")
        meant = [
            caller
            for caller in callers
            if caller.workload and has_audience(jwt.claims, caller.workload.audience)
        ]
        if len(meant) != 1:
            # With the audiences of two callers, the sender could choose between their policies.
            raise JwtRefused("ambiguous" if meant else "audience")
        return meant[0]
