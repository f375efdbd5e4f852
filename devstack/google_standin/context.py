"""What all endpoints share: the state, the planned faults, the request log, clock and behaviour."""

import threading
from dataclasses import dataclass, field
from typing import Any

from broker.clock import Clock, SystemClock
from devstack.google_standin.faults import FaultPlan
from devstack.google_standin.holds import Holds
from devstack.google_standin.recording import Issued, RequestLog
from devstack.google_standin.state import StandinState


@dataclass
class Behaviour:
    """The stand-in's behaviour where Google's own can vary."""

    token_lifetime: int = 3599
    """`expires_in` of new access tokens, in seconds; Google's own is just under an hour."""
    refresh_token_cap: int = 100
    """Live refresh tokens for each account and client."""
    issuer: str | None = None
    """None for the stand-in's own address."""
    send_iss: bool = False
    """True to send `iss` in the callback (RFC 9207), and to announce it in discovery."""
    narrows: bool = True
    """True to return a narrower token for a narrower `scope` at a refresh."""
    includes_granted: bool = True
    """True to honour `include_granted_scopes`."""


@dataclass
class StandinContext:
    """The argument of every endpoint."""

    state: StandinState
    clock: Clock = field(default_factory=SystemClock)
    behaviour: Behaviour = field(default_factory=Behaviour)
    faults: FaultPlan = field(default_factory=FaultPlan)
    holds: Holds = field(default_factory=Holds)
    requests: RequestLog = field(default_factory=RequestLog)
    issued: Issued = field(default_factory=Issued)
    base_url: str = "http://google.localhost"
    delivered: list[dict[str, Any]] = field(default_factory=list)
    """Security events that were sent: `url`, `token`, and the receiver's `status`."""
    stopping: threading.Event = field(default_factory=threading.Event)
    """Set when nothing may be sent any more."""

    @property
    def issuer(self) -> str:
        return self.behaviour.issuer or self.base_url

    def reset(self) -> None:
        """Delete grants, tokens, faults and the log, and restore clients, accounts and behaviour.

        The signing key and the address stay.
        """
        self.holds.release_all()
        self.faults.clear()
        self.state.reset()
        self.behaviour = Behaviour()
        self.requests.clear()
        self.issued.clear()
        self.delivered.clear()
        self.stop_deliveries()

    def stop_deliveries(self) -> None:
        """Send no more of the security events that are being sent."""
        self.stopping.set()
        self.stopping = threading.Event()
