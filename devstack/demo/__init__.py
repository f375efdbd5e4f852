"""The demo page of `make run`: an internal service that asks the broker for tokens, like any other.

It knows the broker's HTTP API only, and shows a token's facts, never the token.
"""
