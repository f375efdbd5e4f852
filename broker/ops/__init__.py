"""The operators' listener: metrics, liveness, readiness."""
