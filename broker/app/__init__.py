"""Wires everything: settings in, three listeners out. The only room that sees all the others.

Each part is handed only what it needs. Nothing is served before the schema, the OAuth client and
the callers were found good; once serving, no part's absence ends the process.
"""

from broker.app.assembly import Broker, assembled
from broker.app.process_context import StartError
from broker.app.serving import LEFT_OUT_OF_THE_START, serve_until

__all__ = ["LEFT_OUT_OF_THE_START", "Broker", "StartError", "assembled", "serve_until"]
