"""A local stand-in for Google: OAuth, OpenID Connect, security events and a small Calendar API.

It follows Google's documented behaviour, failures included. The product never imports it.
"""

from devstack.google_standin.authorization import ShownError
from devstack.google_standin.faults import Fault, PlannedFault
from devstack.google_standin.model import Account, Client
from devstack.google_standin.recording import Issued, RecordedRequest, fingerprint
from devstack.google_standin.server import GoogleStandin
from devstack.google_standin.state import StateFileError

__all__ = [
    "Account",
    "Client",
    "Fault",
    "GoogleStandin",
    "Issued",
    "PlannedFault",
    "RecordedRequest",
    "ShownError",
    "StateFileError",
    "fingerprint",
]
