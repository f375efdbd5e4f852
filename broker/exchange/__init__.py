"""Token exchange (RFC 8693): who shows a user's own JWT gets a Google token for that user."""
