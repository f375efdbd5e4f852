"""What is written down about each request for a token: a count, an audit record, a last use."""

from collections.abc import Iterable

from broker.callers.model import Caller
from broker.grants.last_uses import LastUses
from broker.telemetry.audit import AuditTrail
from broker.telemetry.metrics import Metrics
from broker.tokens.held import HeldToken


class RequestLedger:
    """Counts and audits every hand-out and refusal; nothing in it waits."""

    def __init__(self, *, metrics: Metrics, audit: AuditTrail, last_uses: LastUses) -> None:
        self._requests = metrics.token_requests
        self._audit = audit
        self._last_uses = last_uses

    def handed_out(
        self, caller: Caller, user_id: str, token: HeldToken, *, request_id: str, epoch: float
    ) -> None:
        """A token went out."""
        self._requests.labels(caller.name, "ok").inc()
        self._last_uses.note(token.grant_id, epoch)
        self._audit.record(
            action="token_handed_out",
            outcome="ok",
            caller=caller.name,
            user_id=user_id,
            account_sub=token.account_sub,
            scopes=token.scopes,
            request_id=request_id,
        )

    def refused(
        self, caller: Caller, user_id: str, code: str, *, scopes: Iterable[str], request_id: str
    ) -> None:
        """A token was refused, with the problem's code."""
        self._requests.labels(caller.name, code).inc()
        self._audit.record(
            action="token_refused",
            outcome=code,
            caller=caller.name,
            user_id=user_id,
            scopes=scopes,
            request_id=request_id,
        )
