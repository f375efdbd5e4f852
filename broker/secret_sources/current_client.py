"""The OAuth client in use: the last valid one that its source returned."""

import asyncio
import logging
from datetime import datetime, timedelta

from broker.backoff import Backoff
from broker.clock import Clock
from broker.secret_sources.source import (
    ClientSource,
    OAuthClient,
    SourceError,
    SourceMisconfigured,
)
from broker.single_flight import SingleFlight
from broker.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

LONGEST_BACKOFF = timedelta(seconds=30)


class CurrentClient:
    """Holds the client in use; code that calls Google gets it here for each call, and keeps none.

    Once `load` has succeeded there is always a client. A new version replaces it only when it is
    complete.
    """

    def __init__(
        self,
        source: ClientSource,
        metrics: Metrics,
        clock: Clock,
        *,
        poll_every: timedelta = timedelta(seconds=10),
        maintain_every: timedelta = timedelta(seconds=2),
        reread_limit: timedelta = timedelta(seconds=5),
    ) -> None:
        """`reread_limit` is the longest that a caller of `reread` waits."""
        self._source = source
        self._metrics = metrics
        self._clock = clock
        self._poll_every = poll_every
        self._maintain_every = min(maintain_every, poll_every)
        self._reread_limit = reread_limit
        # The jitter only shortens the pause, and keeps replicas out of step.
        self._backoff = Backoff(poll_every, max(LONGEST_BACKOFF, poll_every), jitter=(0.8, 1.0))
        self._client: OAuthClient | None = None
        self._read_at: datetime | None = None
        self._reads: SingleFlight[None, None] = SingleFlight()
        self._read_problem: SourceError | None = None
        self._maintenance_problem: SourceError | None = None

    @property
    def source_name(self) -> str:
        """The kind of source: `env`, `file` or `vault`."""
        return self._source.name

    @property
    def client(self) -> OAuthClient:
        """The last valid client."""
        if self._client is None:
            raise RuntimeError("the OAuth client is used before it was loaded")
        return self._client

    async def load(self) -> None:
        """Read the client for the first time.

        Raises `SourceUnavailable` or `SourceMisconfigured`: the broker does not start without a
        client.
        """
        try:
            client = await self._source.read()
        except SourceError:
            self._set_up(up=False)
            raise
        self._accept(client)

    async def reread(self, used: OAuthClient | None = None) -> bool:
        """Read the source now: Google has rejected the client `used`, by default the current one.

        Return True if the current client is another than the one used. Concurrent callers share
        one read. If the source is unavailable or unusable, that is logged and the result is False.
        """
        used = used or self.client
        if self.client.has_credentials_of(used):
            read = self._reads.start(None, self._read)
            done, _ = await asyncio.wait({read}, timeout=self._reread_limit.total_seconds())
            if done:
                read.result()
        return not self.client.has_credentials_of(used)

    async def watch(self) -> None:
        """Run for ever: maintain the source, and pick up new versions."""
        loop = asyncio.get_running_loop()
        next_poll = loop.time() + self._poll_every.total_seconds()
        failures = 0
        while True:
            pause = self._backoff.pause(failures) if failures else self._maintain_every
            await asyncio.sleep(pause.total_seconds())
            await self._maintain()
            if failures or loop.time() >= next_poll:
                await self._reads.do(None, self._read)
                next_poll = loop.time() + self._poll_every.total_seconds()
            failures = failures + 1 if self._has_problem else 0

    async def ping(self) -> None:
        """Check that the source is available and its newest client is the one in use.

        Raises `SourceUnavailable` or `SourceMisconfigured`. The client stays in use either way.
        """
        if isinstance(self._read_problem, SourceMisconfigured):
            raise SourceMisconfigured(str(self._read_problem))
        await self._source.ping()

    async def aclose(self) -> None:
        """Stop reading, and close the source."""
        await self._reads.aclose()
        await self._source.aclose()

    @property
    def _has_problem(self) -> bool:
        return self._read_problem is not None or self._maintenance_problem is not None

    async def _read(self) -> None:
        try:
            client = await self._source.read()
        except SourceError as error:
            self._set_up(up=False)
            if str(error) != str(self._read_problem):
                logger.warning(
                    "could not read the OAuth client; the last valid one stays in use",
                    extra={"event": "oauth_client_unreadable", **self._details(error)},
                )
            self._read_problem = error.with_traceback(None)  # Its frames hold what was read.
        else:
            self._accept(client)

    async def _maintain(self) -> None:
        try:
            await self._source.maintain()
        except SourceError as error:
            if str(error) != str(self._maintenance_problem):
                logger.warning(
                    "could not renew the login to the source of the OAuth client",
                    extra={"event": "secret_source_access_not_renewed", **self._details(error)},
                )
            self._maintenance_problem = error.with_traceback(None)
        else:
            self._maintenance_problem = None

    def _accept(self, client: OAuthClient) -> None:
        self._set_up(up=True)
        self._read_at = self._clock.now()
        if self._read_problem is not None:
            self._read_problem = None
            logger.info(
                "read the OAuth client again",
                extra={"event": "oauth_client_readable", "source": self.source_name},
            )
        if client != self._client:
            self._client = client
            self._metrics.client_secret_version.set(client.version)
            logger.info(
                "an OAuth client is in use",
                extra={
                    "event": "oauth_client_loaded",
                    "source": self.source_name,
                    "version": client.version,
                },
            )

    def _details(self, error: SourceError) -> dict[str, str]:
        return {
            "source": self.source_name,
            "reason": str(error),
            "last_read_at": str(self._read_at),
        }

    def _set_up(self, *, up: bool) -> None:
        self._metrics.secret_source_up.labels(source=self.source_name).set(int(up))
