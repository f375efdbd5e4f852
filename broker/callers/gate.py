"""The gate in front of every internal route: who is calling, and may they do this to this user.

A caller is known by its credential alone. Refusals are audited here, and no route does anything
before it has passed.
"""

from contextlib import AbstractAsyncContextManager

from starlette.requests import Request

from broker.audit.trail import AuditTrail
from broker.callers.failed_authentications import FailedAttempts
from broker.callers.limits import CallerLimits
from broker.callers.model import Caller, Permission
from broker.callers.registry import CallerRegistry, bearer_of
from broker.callers.workloads import WorkloadIdentities
from broker.database.shares import use_share_of_caller
from broker.issuers.model import IssuerUnavailable
from broker.issuers.unverified import looks_like_jwt
from broker.web.errors import count_failure
from broker.web.problems import (
    Problem,
    forbidden,
    invalid_request,
    invalid_token,
    issuer_unavailable,
    unauthenticated,
)


class Gate:
    """Admits callers, or refuses them with the contract's problem."""

    def __init__(
        self,
        registry: CallerRegistry,
        audit: AuditTrail,
        workloads: WorkloadIdentities,
        limits: CallerLimits,
        attempts: FailedAttempts,
    ) -> None:
        self._registry = registry
        self._audit = audit
        self._workloads = workloads
        self._limits = limits
        self._attempts = attempts

    @property
    def generation(self) -> int:
        """Another once the callers file has changed.

        What was waited for since is nobody's before its caller was admitted again.
        """
        return self._registry.generation

    async def identify(self, request: Request) -> Caller:
        """The caller whose credential this is.

        Raises `Problem` 401, 400 for a credential in the URL, 429 after too many failures from one
        address, or 503 for a JWT whose issuer is away.
        """
        if b"access_token=" in request.scope["query_string"]:
            raise await self.refuse_url(
                request,
                invalid_request("access_token", "Send the credential as Authorization: Bearer."),
                reason="credential_in_url",
            )
        authorization = _authorization(request)
        caller = self._registry.authenticate(authorization)
        if caller is not None:
            return caller
        token = bearer_of(authorization) if authorization is not None else None
        if token is None or not looks_like_jwt(token):
            raise await self.refuse_stranger(request, unauthenticated())
        return await self._of_workload(request, token)

    async def admit(self, request: Request, permission: Permission, user_id: str) -> Caller:
        """The caller, if it may do this with this user.

        Raises `Problem` 400, 401, 403, 429 or 503.
        """
        caller = await self.admit_for_some(request, permission, user_id)
        self._check_user(request, caller, user_id)
        return caller

    async def admit_again(
        self, request: Request, permission: Permission, user_id: str | None = None
    ) -> Caller:
        """The caller of a request that was admitted, and counted, under an older callers file.

        Raises `Problem` as `admit` does, where it may not do this any more.
        """
        caller = await self.identify(request)
        self._check_permission(request, caller, permission, user_id)
        if user_id is not None:
            self._check_user(request, caller, user_id)
        return caller

    async def admit_for_some(
        self, request: Request, permission: Permission, user_id: str | None = None
    ) -> Caller:
        """The caller, if it may do this with anybody; `refusal` then tells with whom.

        Raises `Problem` 400, 401, 403, 429 or 503.
        """
        caller = await self.identify(request)
        await self.count(caller)
        self._check_permission(request, caller, permission, user_id)
        if permission is not Permission.TOKENS_READ:
            # Those for tokens take their turns later, where they need them.
            about = user_id or str(request.path_params.get("id", ""))
            request.state.at_end = await self._limits.begin_work(caller, about)
        return caller

    def _check_permission(
        self, request: Request, caller: Caller, permission: Permission, user_id: str | None
    ) -> None:
        problem = None
        if not caller.may(permission):
            problem = forbidden(f"This caller's policy does not include {permission}.")
        elif permission is Permission.TOKENS_READ and caller.subject_required:
            problem = forbidden(
                "This caller gets tokens only against a JWT of the user's own: POST /oauth/token."
            )
        if problem is not None:
            self.note_refusal(request, caller, user_id, problem)
            raise problem

    def _check_user(self, request: Request, caller: Caller, user_id: str) -> None:
        refusal = self.refusal(request, caller, user_id)
        if refusal is not None:
            raise refusal

    async def count(self, caller: Caller) -> None:
        """Count a request of this caller's, for which it is served with its own share of all.

        Raises `Problem` 429 if it is one too many.
        """
        use_share_of_caller(caller.name)
        await self._limits.admit(caller)

    def refusal(self, request: Request, caller: Caller, user_id: str) -> Problem | None:
        """Why an admitted caller may not act for this user, if so."""
        if caller.may_act_for(user_id):
            return None
        problem = forbidden("This caller's policy does not include this user.")
        self.note_refusal(request, caller, user_id, problem)
        return problem

    def note_refusal(
        self,
        request: Request,
        caller: Caller | None,
        user_id: str | None,
        problem: Problem,
        *,
        reason: str | None = None,
    ) -> None:
        """Leave a record of a refusal; without a caller, anybody could have caused it."""
        self._audit.record(
            action="request_refused",
            outcome=f"{problem.code}:{reason}" if reason else problem.code,
            caller=caller.name if caller else None,
            user_id=user_id,
            request_id=request.state.request_id,
            from_stranger=caller is None,
        )

    async def refuse_stranger(
        self, request: Request, problem: Problem, *, reason: str | None = None
    ) -> Problem:
        """The answer to a credential that nobody has: the problem, or 429 after too many.

        The record names the `reason` where the problem's code says too little.
        """
        too_many = await self._attempts.failed(request.scope)
        if too_many is not None:
            return too_many
        self.note_refusal(request, None, None, problem, reason=reason)
        return problem

    def reading(self, request: Request, caller: Caller | None) -> AbstractAsyncContextManager[None]:
        """A time to read a body in; `caller` is who the head says it is. Raises `Problem` 429."""
        return self._attempts.reading(request.scope, caller.name if caller else None)

    async def prove(self, request: Request, token: bytes) -> Caller | None:
        """Whose JWT this is, if anybody's. Raises `Problem` 429 and `IssuerUnavailable`."""
        async with self._attempts.verifying(request.scope):
            return await self._workloads.identify(token)

    async def refuse_url(self, request: Request, problem: Problem, *, reason: str) -> Problem:
        """The answer to a credential in a URL: those end up in logs, histories (RFC 9700 §4.3.2).

        Who came with a good one besides is on record by name; what is in the URL proves nobody.
        """
        caller = await self._beside_url(request)
        if caller is None:
            return await self.refuse_stranger(request, problem, reason=reason)
        self.note_refusal(request, caller, None, problem, reason=reason)
        return problem

    async def _beside_url(self, request: Request) -> Caller | None:
        authorization = _authorization(request)
        caller = self._registry.authenticate(authorization)
        token = bearer_of(authorization) if authorization is not None else None
        if caller is not None or token is None or not looks_like_jwt(token):
            return caller
        try:
            return await self.prove(request, token)
        except IssuerUnavailable:
            return None

    async def _of_workload(self, request: Request, token: bytes) -> Caller:
        try:
            caller = await self.prove(request, token)
        except IssuerUnavailable:
            problem = issuer_unavailable()
            count_failure(request, problem)
            self.note_refusal(request, None, None, problem)
            raise problem from None
        if caller is not None:
            return caller
        raise await self.refuse_stranger(request, invalid_token())


def _authorization(request: Request) -> bytes | None:
    """The header's one value; of several, none counts."""
    values = [value for name, value in request.scope["headers"] if name == b"authorization"]
    return values[0] if len(values) == 1 else None
