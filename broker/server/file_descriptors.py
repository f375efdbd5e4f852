"""File descriptors, the one resource that a flood of connections takes from all listeners alike."""

import sys

MOST_CONNECTIONS = 10_000
"""Of one listener, where the system allows as many."""

_ENOUGH = 65_536

if sys.platform == "win32":

    def raise_limit() -> None:
        """There is none to raise."""

    def most_connections() -> int:
        """How many connections one listener may hold."""
        return MOST_CONNECTIONS
else:
    import resource

    def raise_limit() -> None:
        """Take as many descriptors as the system lets this process have, within reason."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

    def most_connections() -> int:
        """How many connections one listener may hold: a quarter of all, so that files, the
        database and Google keep theirs whatever comes in.
        """
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY:
            return MOST_CONNECTIONS
        return min(MOST_CONNECTIONS, soft // 4)
