"""Calls to other servers: hard limits, a name for each failure, cached documents."""
