"""Token exchange (RFC 8693): a user's own JWT for a Google token of that user."""
