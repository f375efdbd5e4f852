"""The gate in front of every internal route: authenticates the caller and checks its policy.

A caller is known by its credential alone. The gate audits refusals, and no route does anything
before its request has passed.
"""

from contextlib import AbstractAsyncContextManager

from starlette.requests import Request

from broker.audit.trail import AuditTrail
from broker.callers.answers import problem_of
from broker.callers.authentication_limits import AuthenticationLimits
from broker.callers.limits import CallerLimits
from broker.callers.model import Caller, Permission
from broker.callers.refusals import AccessRefused, RefusalReason
from broker.callers.registry import CallerRegistry, bearer_of
from broker.callers.workloads import WorkloadIdentities
from broker.database.shares import use_share_of_caller
from broker.issuers.model import IssuerUnavailable
from broker.issuers.unverified_jwt import looks_like_jwt
from broker.web.errors import count_failed_request


class Gate:
    """Admits requests of callers. Raises `AccessRefused` for the others."""

    def __init__(
        self,
        registry: CallerRegistry,
        audit: AuditTrail,
        workloads: WorkloadIdentities,
        limits: CallerLimits,
        authentication_limits: AuthenticationLimits,
    ) -> None:
        self._registry = registry
        self._audit = audit
        self._workloads = workloads
        self._limits = limits
        self._authentication_limits = authentication_limits

    @property
    def generation(self) -> int:
        """Changes with the callers file.

        A response that was computed under another generation must not be sent before its caller is
        admitted again.
        """
        return self._registry.generation

    async def identify(self, request: Request) -> Caller:
        """Return the caller that the credential proves. Raises `AccessRefused`."""
        if b"access_token=" in request.scope["query_string"]:
            raise await self.refuse_url(request, RefusalReason.CREDENTIAL_IN_URL)
        authorization = _authorization(request)
        caller = self._registry.authenticate(authorization)
        if caller is not None:
            return caller
        token = bearer_of(authorization) if authorization is not None else None
        if token is None or not looks_like_jwt(token):
            raise await self.refuse_unauthenticated(request)
        return await self._identify_workload(request, token)

    async def admit(self, request: Request, permission: Permission, user_id: str) -> Caller:
        """Return the caller, if it may do this for this user. Raises `AccessRefused`."""
        caller = await self.admit_for_any_user(request, permission, user_id)
        self._require_user(request, caller, user_id)
        return caller

    async def admit_again(
        self, request: Request, permission: Permission, user_id: str | None = None
    ) -> Caller:
        """Return the caller of a request that was admitted under an older callers file.

        The request is not counted again. Raises `AccessRefused` if the caller may no longer do
        this.
        """
        caller = await self.identify(request)
        self._require_permission(request, caller, permission, user_id)
        if user_id is not None:
            self._require_user(request, caller, user_id)
        return caller

    async def admit_for_any_user(
        self, request: Request, permission: Permission, user_id: str | None = None
    ) -> Caller:
        """Return the caller, if it may do this at all; `check_user` then says for whom.

        Raises `AccessRefused`.
        """
        caller = await self.identify(request)
        await self.count_request(caller)
        self._require_permission(request, caller, permission, user_id)
        if permission is not Permission.TOKENS_READ:
            # Requests for tokens acquire their places later, where they need them.
            about = user_id or str(request.path_params.get("id", ""))
            request.state.at_end = await self._limits.acquire_for_request(caller, about)
        return caller

    async def count_request(self, caller: Caller) -> None:
        """Count a request of this caller, and serve it with the caller's share of connections.

        Raises `AccessRefused` if it is over the rate limit.
        """
        use_share_of_caller(caller.name)
        await self._limits.admit(caller)

    def check_user(self, request: Request, caller: Caller, user_id: str) -> AccessRefused | None:
        """Return the refusal, audited, if an admitted caller may not act for this user."""
        if caller.may_act_for(user_id):
            return None
        refused = AccessRefused(RefusalReason.USER_NOT_ALLOWED)
        self.audit_refusal(request, caller, user_id, refused.audit_outcome)
        return refused

    def audit_refusal(
        self, request: Request, caller: Caller | None, user_id: str | None, outcome: str
    ) -> None:
        """Record a refusal; without a caller, anyone could have caused it."""
        self._audit.record(
            action="request_refused",
            outcome=outcome,
            caller=caller.name if caller else None,
            user_id=user_id,
            request_id=request.state.request_id,
            unauthenticated=caller is None,
        )

    async def refuse_unauthenticated(
        self, request: Request, reason: RefusalReason = RefusalReason.UNAUTHENTICATED
    ) -> AccessRefused:
        """Return the refusal, audited, of an unknown credential; after too many, a rate limit."""
        over_limit = await self._authentication_limits.count_failure(request.scope)
        if over_limit is not None:
            return over_limit
        refused = AccessRefused(reason)
        self.audit_refusal(request, None, None, refused.audit_outcome)
        return refused

    async def refuse_url(self, request: Request, reason: RefusalReason) -> AccessRefused:
        """Return the refusal, audited, of a URL with a credential or with parameters.

        URLs end up in logs and histories (RFC 9700 §4.3.2). The audit record names the caller that
        the header authenticates; a credential in the URL authenticates no one.
        """
        caller = await self._caller_of_header(request)
        if caller is None:
            return await self.refuse_unauthenticated(request, reason)
        refused = AccessRefused(reason)
        self.audit_refusal(request, caller, None, refused.audit_outcome)
        return refused

    def reading_form(
        self, request: Request, caller: Caller | None
    ) -> AbstractAsyncContextManager[None]:
        """A place to read a form in; `caller` is the one that the header authenticates.

        Raises `AccessRefused`.
        """
        return self._authentication_limits.reading_form(
            request.scope, caller.name if caller else None
        )

    async def authenticate_jwt(self, request: Request, token: bytes) -> Caller | None:
        """Return the caller that a JWT proves, if any. Raises `AccessRefused`, also if the
        issuer's keys are unavailable; that failure is counted, and not audited.
        """
        try:
            async with self._authentication_limits.verifying_jwt(request.scope):
                return await self._workloads.identify(token)
        except IssuerUnavailable:
            refused = AccessRefused(RefusalReason.ISSUER_UNAVAILABLE)
            count_failed_request(request, problem_of(refused))
            raise refused from None

    async def _identify_workload(self, request: Request, token: bytes) -> Caller:
        try:
            caller = await self.authenticate_jwt(request, token)
        except AccessRefused as refused:
            if refused.reason is RefusalReason.ISSUER_UNAVAILABLE:
                self.audit_refusal(request, None, None, refused.audit_outcome)
            raise
        if caller is not None:
            return caller
        raise await self.refuse_unauthenticated(request, RefusalReason.INVALID_JWT)

    async def _caller_of_header(self, request: Request) -> Caller | None:
        authorization = _authorization(request)
        caller = self._registry.authenticate(authorization)
        token = bearer_of(authorization) if authorization is not None else None
        if caller is not None or token is None or not looks_like_jwt(token):
            return caller
        try:
            async with self._authentication_limits.verifying_jwt(request.scope):
                return await self._workloads.identify(token)
        except IssuerUnavailable:
            return None

    def _require_permission(
        self, request: Request, caller: Caller, permission: Permission, user_id: str | None
    ) -> None:
        if not caller.may(permission):
            refused = AccessRefused(RefusalReason.PERMISSION_MISSING, permission=permission)
        elif permission is Permission.TOKENS_READ and caller.subject_required:
            refused = AccessRefused(RefusalReason.SUBJECT_REQUIRED)
        else:
            return
        self.audit_refusal(request, caller, user_id, refused.audit_outcome)
        raise refused

    def _require_user(self, request: Request, caller: Caller, user_id: str) -> None:
        refused = self.check_user(request, caller, user_id)
        if refused is not None:
            raise refused


def _authorization(request: Request) -> bytes | None:
    """Return the header's only value; several values are as none."""
    values = [value for name, value in request.scope["headers"] if name == b"authorization"]
    return values[0] if len(values) == 1 else None
