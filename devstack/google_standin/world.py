"""What all endpoints share: the records, the plan of faults, the log, the clock and the manners."""

import threading
from dataclasses import dataclass, field
from typing import Any

from broker.clock import Clock, SystemClock
from devstack.google_standin.faults import FaultPlan
from devstack.google_standin.holds import Holds
from devstack.google_standin.recording import Issued, RequestLog
from devstack.google_standin.state import StandinState


@dataclass
class Manners:
    """How this Google behaves where Google's own behaviour can vary."""

    token_lifetime: int = 3599
    """`expires_in` of new access tokens, in seconds; Google's own answer is just under an hour."""
    refresh_token_cap: int = 100
    """Live refresh tokens per account and client."""
    issuer: str | None = None
    """Left out, the stand-in's own address."""
    send_iss: bool = False
    """Whether the callback carries `iss` (RFC 9207), and discovery says so."""
    narrows: bool = True
    """Whether a narrower `scope` at a refresh yields a narrower token."""
    includes_granted: bool = True
    """Whether `include_granted_scopes` is heeded."""


@dataclass
class World:
    """Given to every endpoint."""

    state: StandinState
    clock: Clock = field(default_factory=SystemClock)
    manners: Manners = field(default_factory=Manners)
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
        return self.manners.issuer or self.base_url
