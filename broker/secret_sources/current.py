"""The OAuth client in force: the last good one that its source gave, whatever happens to that."""

import asyncio
import logging
import secrets
from datetime import datetime, timedelta

from broker.clock import Clock
from broker.secret_sources.client import OAuthClient
from broker.secret_sources.source import ClientSource, SourceError, SourceMisconfigured
from broker.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

_LONGEST_PAUSE = timedelta(seconds=30)
_jitter = secrets.SystemRandom()


class CurrentClient:
    """Everyone who speaks to Google asks it for the client at each call, and keeps none.

    Once `load` has succeeded there is always a client; a new version replaces it only when it is
    complete.
    """

    def __init__(
        self,
        source: ClientSource,
        metrics: Metrics,
        clock: Clock,
        *,
        look_every: timedelta = timedelta(seconds=10),
        maintain_every: timedelta = timedelta(seconds=2),
        reread_limit: timedelta = timedelta(seconds=5),
    ) -> None:
        """`reread_limit` is the longest that a caller of `reread` waits."""
        self._source = source
        self._metrics = metrics
        self._clock = clock
        self._look_every = look_every
        self._maintain_every = min(maintain_every, look_every)
        self._reread_limit = reread_limit
        self._client: OAuthClient | None = None
        self._read_at: datetime | None = None
        self._look: asyncio.Task[None] | None = None
        self._read_problem: SourceError | None = None
        self._upkeep_problem: SourceError | None = None

    @property
    def source_name(self) -> str:
        """Which kind of source it is: `env`, `file` or `vault`."""
        return self._source.name

    @property
    def client(self) -> OAuthClient:
        """The last good client."""
        if self._client is None:
            raise RuntimeError("the OAuth client is used before it was loaded")
        return self._client

    async def load(self) -> None:
        """The first read. Raises `SourceUnavailable` or `SourceMisconfigured`: without a client
        there is nothing to start with.
        """
        try:
            client = await self._source.read()
        except SourceError:
            self._set_up(up=False)
            raise
        self._accept(client)

    async def reread(self, used: OAuthClient | None = None) -> bool:
        """Read at once, because Google has refused the client `used` (default: the current one).

        True if there is another client now than the one used. All who ask while a read is under
        way share it. An unavailable or unusable source is logged, and is no news: False.
        """
        used = used or self.client
        if self.client.has_credentials_of(used):
            look = self._shared_look()
            await asyncio.wait({look}, timeout=self._reread_limit.total_seconds())
            if look.done():
                look.result()
        return not self.client.has_credentials_of(used)

    async def watch(self) -> None:
        """Run for ever: keep the source usable, and pick up new versions."""
        loop = asyncio.get_running_loop()
        next_look = loop.time() + self._look_every.total_seconds()
        failures = 0
        while True:
            await asyncio.sleep(self._pause(failures))
            await self._maintain()
            if failures or loop.time() >= next_look:
                await asyncio.shield(self._shared_look())
                next_look = loop.time() + self._look_every.total_seconds()
            failures = failures + 1 if self._has_problem else 0

    async def ping(self) -> None:
        """Return if the source is there and its newest client is the one in force.

        Raises `SourceUnavailable` or `SourceMisconfigured`. The client in force serves either way.
        """
        if isinstance(self._read_problem, SourceMisconfigured):
            raise SourceMisconfigured(str(self._read_problem))
        await self._source.ping()

    async def aclose(self) -> None:
        """Stop reading, and close the source."""
        if self._look is not None:
            self._look.cancel()
            await asyncio.wait({self._look})
        await self._source.aclose()

    @property
    def _has_problem(self) -> bool:
        return self._read_problem is not None or self._upkeep_problem is not None

    def _pause(self, failures: int) -> float:
        """Seconds until the next round: longer after each failure, and never in step with the
        other replicas then.
        """
        if not failures:
            return self._maintain_every.total_seconds()
        longest = max(_LONGEST_PAUSE, self._look_every)
        pause = min(self._look_every * (1 << min(failures - 1, 10)), longest)
        return pause.total_seconds() * _jitter.uniform(0.8, 1.0)

    def _shared_look(self) -> asyncio.Task[None]:
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(self._look_now(), name="read the OAuth client")
        return self._look

    async def _look_now(self) -> None:
        try:
            client = await self._source.read()
        except SourceError as error:
            self._set_up(up=False)
            self._tell(
                "the OAuth client can't be read; the last good one serves on",
                error,
                self._read_problem,
            )
            self._read_problem = error.with_traceback(None)  # Its frames hold what was read.
        else:
            self._accept(client)

    async def _maintain(self) -> None:
        try:
            await self._source.maintain()
        except SourceError as error:
            self._tell(
                "the access to the OAuth client's source can't be kept up",
                error,
                self._upkeep_problem,
            )
            self._upkeep_problem = error.with_traceback(None)
        else:
            self._upkeep_problem = None

    def _accept(self, client: OAuthClient) -> None:
        self._set_up(up=True)
        self._read_at = self._clock.now()
        if self._read_problem is not None:
            self._read_problem = None
            logger.info("the OAuth client can be read again", extra={"source": self.source_name})
        if client != self._client:
            self._client = client
            self._metrics.client_secret_version.set(client.version)
            logger.info(
                "an OAuth client is in force",
                extra={"source": self.source_name, "version": client.version},
            )

    def _tell(self, what: str, error: SourceError, before: SourceError | None) -> None:
        """One line for each new problem, not for each try."""
        if str(error) != str(before):
            logger.warning(
                what,
                extra={
                    "source": self.source_name,
                    "reason": str(error),
                    "last_read_at": str(self._read_at),
                },
            )

    def _set_up(self, *, up: bool) -> None:
        self._metrics.secret_source_up.labels(source=self.source_name).set(int(up))
