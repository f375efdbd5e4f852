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
        caller = self.admit_for_some(request, permission, user_id)
        refusal = self.refusal(request, caller, user_id)
        if refusal is not None:
            raise refusal
        return caller

    def admit_for_some(
        self, request: Request, permission: Permission, user_id: str | None = None
    ) -> Caller:
        """The caller, if it may do this with anybody; `refusal` then tells with whom.

        Raises `Problem` 400, 401 or 403.
        """
        caller = self.identify(request)
        if not caller.may(permission):
            problem = forbidden(f"This caller's policy does not include {permission}.")
            self._refuse(request, caller, user_id, problem)
            raise problem
        return caller

    def refusal(self, request: Request, caller: Caller, user_id: str) -> Problem | None:
        """Why an admitted caller may not act for this user, if so."""
        if caller.may_act_for(user_id):
            return None
        problem = forbidden("This caller's policy does not include this user.")
        self._refuse(request, caller, user_id, problem)
        return problem

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
