"""Rate limits, concurrency limits and fairness."""
