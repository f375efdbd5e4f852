"""The ops listener: metrics, liveness, readiness; and the periodic jobs."""
