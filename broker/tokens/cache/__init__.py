"""Access tokens in memory: the cache, and how stale it may be."""
