"""What is written down about each request for a token: a count, an audit record, a last use."""

from collections.abc import Iterable

from broker.callers.model import Caller
from broker.grants.last_uses import LastUses
from broker.telemetry.audit import AuditTrail, happening
from broker.telemetry.metrics import Metrics
from broker.tokens.held import HeldToken


class HandOuts:
    """Writes down that one token went to one caller, as often as it does."""

    __slots__ = ("_audit", "_caller", "_count", "_grant_id", "_last_uses", "_token", "_what")

    def __init__(
        self, caller: Caller, user_id: str, token: HeldToken, ledger: "RequestLedger"
    ) -> None:
        self._count = ledger.requests.labels(caller.name, "ok")
        self._last_uses = ledger.last_uses
        self._grant_id = token.grant_id
        self._caller = caller.name
        self._token = token
        self._audit = ledger.audit
        self._what = happening(
            action="token_handed_out",
            outcome="ok",
            caller=caller.name,
            user_id=user_id,
            account_sub=token.account_sub,
            scopes=token.scopes,
        )

    def note(self, *, request_id: bytes, epoch: float) -> None:
        """It went out now, `epoch` seconds after 1970."""
        self._token.used_again = self._token.used
        self._token.used = True
        self._count.inc()
        self._last_uses.note(self._grant_id, epoch, self._caller)
        self._audit.add(epoch, self._what, request_id)


class RequestLedger:
    """Counts and audits every hand-out and refusal; nothing in it waits."""

    def __init__(self, *, metrics: Metrics, audit: AuditTrail, last_uses: LastUses) -> None:
        self.requests = metrics.token_requests
        self.audit = audit
        self.last_uses = last_uses

    def handed_out(
        self, caller: Caller, user_id: str, token: HeldToken, *, request_id: str, epoch: float
    ) -> None:
        """A token went out."""
        HandOuts(caller, user_id, token, self).note(request_id=request_id.encode(), epoch=epoch)

    def refused(
        self, caller: Caller, user_id: str, code: str, *, scopes: Iterable[str], request_id: str
    ) -> None:
        """A token was refused, with the problem's code."""
        self.requests.labels(caller.name, code).inc()
        self.audit.record(
            action="token_refused",
            outcome=code,
            caller=caller.name,
            user_id=user_id,
            scopes=scopes,
            request_id=request_id,
        )
