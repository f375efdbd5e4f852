"""The subject of a token exchange: the user that a JWT of a trusted issuer names.

A JWT is accepted only for the audience that is configured for users; a workload's own JWT is never
a user's, whatever its audience.
"""

from broker.callers.model import Caller
from broker.callers.registry import CallerRegistry
from broker.issuers.model import JwtRefused, UserRule
from broker.issuers.trusted import TrustedIssuers
from broker.issuers.unverified_jwt import (
    LONGEST_SUBJECT_TOKEN,
    UnverifiedJwt,
    has_audience,
    read_unverified,
    unverified_issuer,
    unverified_subject,
)
from broker.web.parameters import is_user_id

_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:"  # noqa: S105  (a name)
ACCESS_TOKEN = f"{_TOKEN_TYPE}access_token"
ID_TOKEN = f"{_TOKEN_TYPE}id_token"
JWT = f"{_TOKEN_TYPE}jwt"
SUBJECT_TOKEN_TYPES = (JWT, ID_TOKEN, ACCESS_TOKEN)


class SubjectTokens:
    """Verifies the users' JWTs."""

    def __init__(self, issuers: TrustedIssuers, registry: CallerRegistry) -> None:
        self._issuers = issuers
        self._registry = registry

    async def user_id(self, subject_token: str, token_type: str, caller: Caller) -> str:
        """Return the user that the JWT proves to this caller.

        Raises `JwtRefused`; `IssuerUnavailable` if its issuer's keys cannot be fetched.
        """
        jwt = read_unverified(subject_token.encode(), at_most=LONGEST_SUBJECT_TOKEN)
        if token_type == ID_TOKEN and jwt.type == "at+jwt":
            raise JwtRefused("type")
        while True:
            issuer = self._issuers.find(jwt)
            if issuer is None or issuer.users is None:
                raise JwtRefused("issuer")
            if self._registry.workloads(unverified_issuer(jwt), unverified_subject(jwt)):
                raise JwtRefused("workload")
            user_id = _user_id(jwt, issuer.users)
            if "may_act" in jwt.claims and not _is_named(caller, jwt):
                raise JwtRefused("may_act")
            await self._issuers.verify(jwt)
            if self._issuers.find(jwt) == issuer:
                return user_id
            # The issuer's configuration changed during the verification.


def _user_id(jwt: UnverifiedJwt, rule: UserRule) -> str:
    if not has_audience(jwt.claims, rule.audience):
        raise JwtRefused("audience")
    user_id = jwt.claims.get(rule.claim)
    if not isinstance(user_id, str) or not is_user_id(user_id):
        raise JwtRefused("claim")
    if rule.claim == "email" and jwt.claims.get("email_verified") not in (True, "true"):
        # Some issuers let a user set any address.
        raise JwtRefused("email_unverified")
    return user_id


def _is_named(caller: Caller, jwt: UnverifiedJwt) -> bool:
    """True if `may_act` (RFC 8693 §4.4) names this caller, by its name here or by its workload.

    A `may_act` without `iss` means a subject of the JWT's issuer.
    """
    actor = jwt.claims["may_act"]
    if not isinstance(actor, dict):
        return False
    subject, issuer = actor.get("sub"), actor.get("iss")
    if caller.workload is not None:
        known_by = unverified_issuer(jwt) if "iss" not in actor else issuer
        if (known_by, subject) == (caller.workload.issuer, caller.workload.subject):
            return True
    return "iss" not in actor and subject == caller.name
