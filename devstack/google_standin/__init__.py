"""A Google that runs on a developer's machine: OAuth, OpenID Connect and a little Calendar.

It follows Google's documented behaviour, failures included, and is never imported by the product.
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
