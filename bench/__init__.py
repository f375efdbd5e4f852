"""Benchmarks: the cost of serving a token, compared with a bare ASGI app in the same run."""
