"""File descriptors (RLIMIT_NOFILE): the resource that a flood of connections exhausts first."""

import sys

MAX_CONNECTIONS = 10_000
"""Connections of one listener, if the system allows as many."""

_ENOUGH = 65_536

if sys.platform == "win32":

    def raise_limit() -> None:
        """Windows has no such limit."""

    def max_connections() -> int:
        """Return how many connections one listener may hold."""
        return MAX_CONNECTIONS
else:
    import resource

    def raise_limit() -> None:
        """Raise the soft limit to the hard one, or to 65,536."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

    def max_connections() -> int:
        """Return how many connections one listener may hold: a quarter of all descriptors.

        The last quarter stays free for files, the database and Google.
        """
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY:
            return MAX_CONNECTIONS
        return min(MAX_CONNECTIONS, soft // 4)
