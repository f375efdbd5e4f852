"""Gauges that are read from the parts when they are scraped, so that keeping them costs nothing."""

from broker.database.database import Database
from broker.telemetry.metrics import Metrics
from broker.tokens.refresh.refresher import Refresher

_AWAY_SECONDS = 10.0
"""Longer than a connection is tried, so that an outage is one, and not several short ones."""


def observe_storage(metrics: Metrics, database: Database) -> None:
    """Show whether PostgreSQL's primary is there, and how busy the connections to it are."""
    pool = database.pool
    metrics.storage_up.set_function(lambda: not database.was_away_within(_AWAY_SECONDS))
    metrics.storage_connections.labels("in_use").set_function(lambda: pool.in_use)
    metrics.storage_connections.labels("idle").set_function(lambda: pool.idle)
    metrics.storage_connections_max.set(pool.size)
    metrics.storage_waiting.labels("pool").set_function(lambda: pool.waiting_for_pool)
    metrics.storage_waiting.labels("share").set_function(lambda: pool.waiting_for_share)


def observe_refreshes(metrics: Metrics, refresher: Refresher) -> None:
    """Show how many refreshes are under way."""
    metrics.refreshes_in_flight.set_function(lambda: refresher.in_flight)
