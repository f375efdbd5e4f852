"""Getting a new access token from Google: single flight, leases, back-off, write-behind."""
