"""Metrics, logs and audit: what the broker tells its operators, and never a secret among it."""
