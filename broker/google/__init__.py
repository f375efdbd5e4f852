"""Everything known of Google: endpoints, tokens, revocation, ID tokens, what errors mean.

Nothing here knows of users, grants or callers, and nothing here stores a token.
"""
