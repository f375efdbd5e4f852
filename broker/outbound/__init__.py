"""What all calls to services elsewhere share: hard bounds, and a name for each failure."""
