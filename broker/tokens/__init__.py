"""Token requests: the routes, the dispenser, batches, and the fast path."""
