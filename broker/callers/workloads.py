"""Callers without a key: a JWT of a trusted issuer says which workload this is.

Looks at the claims first, unverified, so that a JWT that could not be any caller's costs neither a
verification nor a question to an issuer.
"""

import logging
from hashlib import sha256

from broker.callers.model import Caller
from broker.callers.registry import MAX_CREDENTIAL_BYTES, CallerRegistry
from broker.issuers.model import JwtRefused
from broker.issuers.refusals import JwtRefusals
from broker.issuers.trusted import TrustedIssuers, is_meant_for, issuer_of, subject_of
from broker.issuers.unverified import UnverifiedJwt, read_unverified

logger = logging.getLogger(__name__)


class WorkloadIdentities:
    """Finds the caller that a JWT proves, and remembers it in the registry."""

    def __init__(
        self, registry: CallerRegistry, issuers: TrustedIssuers, refusals: JwtRefusals
    ) -> None:
        self._registry = registry
        self._issuers = issuers
        self._refusals = refusals

    async def identify(self, token: bytes) -> Caller | None:
        """Whose JWT this is; nobody's if any check fails.

        Raises `IssuerUnavailable` for one that may well be a caller's, while the keys that it
        would have to be verified with can't be had.
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
            self._refusals.note("caller", refusal)
            return None

    async def _verified(self, jwt: UnverifiedJwt, digest: bytes) -> Caller:
        while True:
            generation = self._registry.generation
            caller = self._claimed(jwt)
            verified = await self._issuers.verify(jwt)
            if generation != self._registry.generation:
                # Who may call changed meanwhile, and perhaps what the issuer is trusted with.
                continue
            self._registry.verified.remember(
                digest, caller, good_until=verified.good_until, key=verified.key
            )
            return caller

    def _claimed(self, jwt: UnverifiedJwt) -> Caller:
        """The one caller whose workload the claims name. Raises `JwtRefused`."""
        callers = self._registry.workloads(issuer_of(jwt), subject_of(jwt))
        if not callers:
            raise JwtRefused("no_such_workload")
        if "cnf" in jwt.claims:
            # It counts only with a proof of a key (RFC 7800), which no caller can show here.
            raise JwtRefused("bound")
        meant = [
            caller
            for caller in callers
            if caller.workload and is_meant_for(jwt.claims, caller.workload.audience)
        ]
        if len(meant) != 1:
            # Meant for two callers at once, it would be for the sender to choose between policies.
            raise JwtRefused("ambiguous" if meant else "audience")
        return meant[0]
