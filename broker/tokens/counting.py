"""What is written down about each request for a token: a count, an audit record, a last use."""

from collections.abc import Iterable
from functools import partial

from starlette.requests import Request

from broker.audit.trail import AuditTrail, told_outcome
from broker.callers.limits import NOBODY
from broker.callers.model import Caller
from broker.grants.last_uses import LastUses
from broker.telemetry.metrics import Metrics
from broker.tokens.cache.cached_token import HeldToken


class HandOuts:
    """Writes down that tokens went to one caller; what they have in common is made ready."""

    __slots__ = ("_audit", "_caller", "_count", "_last_uses", "_what")

    def __init__(self, caller: Caller, ledger: "RequestLedger") -> None:
        self._count = ledger.requests.labels(caller.name, "ok")
        self._last_uses = ledger.last_uses
        self._caller = caller.name
        self._audit = ledger.audit
        self._what = told_outcome("token_handed_out", "ok", caller.name)

    def note(self, token: HeldToken, *, request_id: bytes | None, epoch: float) -> None:
        """A token went out now, `epoch` seconds after 1970; without an id it is no record of its
        own, but one more of those of which the number will be on record.
        """
        token.used_again = token.used_lately = token.used
        token.used = True
        self._count.inc()
        self._last_uses.note(token.grant_bytes, epoch, self._caller)
        if request_id is None:
            self._audit.leave_out(self._what)
        else:
            self._audit.add(epoch, self._what, request_id, token)


class RequestLedger:
    """Counts and audits every hand-out and refusal; nothing in it waits."""

    def __init__(self, *, metrics: Metrics, audit: AuditTrail, last_uses: LastUses) -> None:
        self.requests = metrics.token_requests
        self.audit = audit
        self.last_uses = last_uses
        self._hand_outs: dict[str, HandOuts] = {}

    def hand_outs(self, caller: Caller) -> HandOuts:
        """Where to note what a caller gets; the same for all policies that it ever has."""
        hand_outs = self._hand_outs.get(caller.name)
        if hand_outs is None:
            hand_outs = self._hand_outs[caller.name] = HandOuts(caller, self)
        return hand_outs

    def begin(self, request: Request, caller: Caller | None = None, number: int = 1) -> None:
        """Should this request fail in a way that no route answers, it counts as so many failed
        requests for a token. Call it first, and again when the caller and the number are known.
        """
        name = caller.name if caller is not None else NOBODY
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
        """A token was refused, with the problem's code; perhaps before it was known for whom."""
        self.requests.labels(caller.name, code).inc()
        self.audit.record(
            action="token_refused",
            outcome=code,
            caller=caller.name,
            user_id=user_id,
            scopes=scopes,
            request_id=request_id,
        )
