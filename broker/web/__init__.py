"""What all routes share: problems, request ids, headers, limits, the servers themselves."""
