"""New access tokens from Google: leases, back-off, circuit breaker, write-behind."""
