"""The way to asyncpg's `connect`, and the mending of one flaw of the driver's.

Connections are made through here alone, so that nobody connects without the mending.
"""

import asyncpg
from asyncpg import connect_utils


def _mend() -> None:
    class Upgrade(connect_utils.TLSUpgradeProto):
        """The question whether a server speaks TLS, whose answer need not interest anybody.

        Whoever connects waits for the answer only once the connection is made. Where that is given
        up before (a time-out, a stop, a cancel request for a query whose own connection was lost),
        the driver closes what it has, and that is then told to a future that nobody has: asyncio
        logs it as an error, "Future exception was never retrieved". Who does wait for it gets the
        same error.
        """

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            if not self.on_data.cancelled():
                self.on_data.exception()

    # The driver offers no way to give it another class. A test notices if it goes another way.
    connect_utils.TLSUpgradeProto = Upgrade  # type: ignore[misc]


# A driver that does without it may have the flaw; but it connects.
if hasattr(connect_utils, "TLSUpgradeProto"):
    _mend()

connect = asyncpg.connect
"""As the driver describes it."""
