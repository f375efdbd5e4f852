"""Counts and audits each request for a token, and notes the last use of the grant."""

from collections.abc import Iterable
from functools import partial

from starlette.requests import Request

from broker.audit.records import outcome_fields
from broker.audit.trail import AuditTrail
from broker.callers.limits import NO_CALLER
from broker.callers.model import Caller
from broker.grants.last_uses import LastUses
from broker.telemetry.metrics import Metrics
from broker.tokens.cache.cached_token import CachedToken


class HandOuts:
    """Records the tokens handed out to one caller; what they have in common is precomputed."""

    __slots__ = ("_audit", "_caller", "_count", "_last_uses", "_outcome")

    def __init__(self, caller: Caller, ledger: "RequestLedger") -> None:
        self._count = ledger.requests.labels(caller.name, "ok")
        self._last_uses = ledger.last_uses
        self._caller = caller.name
        self._audit = ledger.audit
        self._outcome = outcome_fields("token_handed_out", "ok", caller.name)

    def record(self, token: CachedToken, *, request_id: bytes | None, epoch: float) -> None:
        """Record a token handed out at `epoch`, in seconds since 1970.

        Without `request_id` it has no audit record of its own: it is counted, and the audit trail
        records the number.
        """
        token.used_again = token.referenced = token.used
        token.used = True
        self._count.inc()
        self._last_uses.record_use(token.grant_bytes, epoch, self._caller)
        if request_id is None:
            self._audit.count_dropped(self._outcome)
        else:
            self._audit.add(epoch, self._outcome, request_id, token)


class RequestLedger:
    """Records every hand-out and refusal, in memory and without I/O."""

    def __init__(self, *, metrics: Metrics, audit: AuditTrail, last_uses: LastUses) -> None:
        self.requests = metrics.token_requests
        self.audit = audit
        self.last_uses = last_uses
        self._hand_outs: dict[str, HandOuts] = {}

    def hand_outs(self, caller: Caller) -> HandOuts:
        """Return the recorder of a caller's hand-outs, one for all its policies."""
        hand_outs = self._hand_outs.get(caller.name)
        if hand_outs is None:
            hand_outs = self._hand_outs[caller.name] = HandOuts(caller, self)
        return hand_outs

    def begin(self, request: Request, caller: Caller | None = None, number: int = 1) -> None:
        """Have a failure that no route answers counted as `number` failed token requests.

        Call it first, and again when the caller and the number are known.
        """
        name = caller.name if caller is not None else NO_CALLER
        request.state.count_failure = partial(self._failed, name, number)

    def _failed(self, caller: str, number: int, code: str) -> None:
        self.requests.labels(caller, code).value += number

    def refused(
        self,
        caller: Caller,
        user_id: str | None,
        code: str,
        *,
        scopes: Iterable[str],
        request_id: str,
    ) -> None:
        """Record a refusal by its problem code; the user may be unknown."""
        self.requests.labels(caller.name, code).inc()
        self.audit.record(
            action="token_refused",
            outcome=code,
            caller=caller.name,
            user_id=user_id,
            scopes=scopes,
            request_id=request_id,
        )
