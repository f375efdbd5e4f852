"""Access tokens in memory: the cache, its reads, its fast path, proactive refresh."""
