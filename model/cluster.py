"""A PostgreSQL primary and, at times, its streaming standby, on two fixed ports.

The standby streams over a relay. While the relay is cut it lags, and a failover loses commits.
"""

import asyncio
import shutil
from pathlib import Path

from broker.database.schema import migrate
from broker.secret import Secret
from devstack.postgres import EmbeddedPostgres
from model.relays import Relay, Relays
from tests.chaos.standby import promote, streaming_replica, wait_until_caught_up
from tests.support.postgres import UNSAFE_BUT_FAST
from tests.support.processes import free_ports

DATABASE = "broker"


class Cluster:
    """At most one of the two is the primary; a replaced primary never returns."""

    def __init__(self, folder: Path, relays: Relays) -> None:
        self._folder = folder
        self._relays = relays
        self._made = 0
        self.ports = tuple(free_ports(2))
        self.primary = EmbeddedPostgres(
            self._new_folder(), port=self.ports[0], options=UNSAFE_BUT_FAST
        )
        self.standby: EmbeddedPostgres | None = None
        self.stream: Relay | None = None

    def start(self) -> None:
        """A primary with a migrated database."""
        self.primary.start()
        self.primary.create_database(DATABASE)
        asyncio.run(migrate(Secret(self.url)))

    def stop(self) -> None:
        for server in (self.standby, self.primary):
            if server is not None:
                server.stop("immediate")

    @property
    def url(self) -> str:
        """The primary's direct address, without a relay."""
        return self.primary.url(DATABASE)

    @property
    def is_up(self) -> bool:
        return self.primary.is_running()

    @property
    def lags(self) -> bool:
        """True if the standby does not receive current commits."""
        return self.stream is not None and self.stream.is_cut

    def add_standby(self) -> None:
        """Create a standby from the current primary."""
        (port,) = set(self.ports) - {self.primary.port}
        self.stream = self._relays.open(self.primary.port)
        self.standby = streaming_replica(
            self.primary, self._new_folder(), port=port, through=self.stream.port
        )
        self.catch_up()

    def catch_up(self) -> None:
        """Wait until the standby has every commit."""
        assert self.standby is not None
        wait_until_caught_up(self.primary, self.standby)

    def crash(self) -> None:
        self.primary.stop("immediate")

    def restart(self) -> None:
        self.primary.start()

    def fail_over(self) -> None:
        """Stop the primary for good, and promote the standby as it is."""
        assert self.standby is not None
        lost = self.primary
        lost.stop("immediate")
        promote(self.standby)
        self.primary, self.standby, self.stream = self.standby, None, None
        shutil.rmtree(lost.folder, ignore_errors=True)

    def _new_folder(self) -> Path:
        self._made += 1
        return self._folder / f"postgres-{self._made}"
