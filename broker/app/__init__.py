"""Wires the broker: settings in, three listeners out. Imports every package of the service.

Each part gets only what it needs. Nothing is served before the schema, the OAuth client and the
callers file are valid. Once the broker serves, the outage of a part does not end the process.
"""

from broker.app.assembly import Broker, assembled
from broker.app.process_context import StartError
from broker.app.serving import IMPORTED_AFTER_START, serve_until

__all__ = ["IMPORTED_AFTER_START", "Broker", "StartError", "assembled", "serve_until"]
