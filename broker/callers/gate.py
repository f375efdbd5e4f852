"""The gate in front of every internal route: who is calling, and may they do this to this user.

A caller is known by its credential alone. Refusals are audited here, and no route does anything
before it has passed.
"""

from starlette.requests import Request

from broker.callers.model import Caller, Permission
from broker.callers.registry import CallerRegistry
from broker.telemetry.audit import AuditTrail
from broker.web.problems import Problem, forbidden, invalid_request, unauthenticated


class Gate:
    """Admits callers, or refuses them with the contract's problem."""

    def __init__(self, registry: CallerRegistry, audit: AuditTrail) -> None:
        self._registry = registry
        self._audit = audit

    def identify(self, request: Request) -> Caller:
        """The caller whose credential this is. Raises `Problem` 401, or 400 for one in the URL."""
        if b"access_token=" in request.scope["query_string"]:
            # RFC 9700 §4.3.2: a credential in a URL ends up in logs and histories.
            raise invalid_request("access_token", "Send the credential as Authorization: Bearer.")
        headers = [value for name, value in request.scope["headers"] if name == b"authorization"]
        caller = self._registry.authenticate(headers[0]) if len(headers) == 1 else None
        if caller is None:
            self._refuse(request, None, None, unauthenticated())
            raise unauthenticated()
        return caller

    def admit(self, request: Request, permission: Permission, user_id: str) -> Caller:
        """The caller, if it may do this with this user. Raises `Problem` 400, 401 or 403."""
        caller = self.identify(request)
        refusal: Problem | None = None
        if not caller.may(permission):
            refusal = forbidden(f"This caller's policy does not include {permission}.")
        elif not caller.may_act_for(user_id):
            refusal = forbidden("This caller's policy does not include this user.")
        if refusal is not None:
            self._refuse(request, caller, user_id, refusal)
            raise refusal
        return caller

    def _refuse(
        self, request: Request, caller: Caller | None, user_id: str | None, problem: Problem
    ) -> None:
        self._audit.record(
            action="request_refused",
            outcome=problem.code,
            caller=caller.name if caller else None,
            user_id=user_id,
            request_id=request.state.request_id,
            from_stranger=caller is None,
        )
