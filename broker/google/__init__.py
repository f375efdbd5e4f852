"""Everything specific to Google: endpoints, tokens, revocation, ID tokens, events, errors.

Knows nothing of users, grants or callers, and stores no token.
"""
