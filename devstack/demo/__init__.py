"""The demo page of `make run`: an internal service that requests tokens from the broker.

It uses only the broker's HTTP API. It shows facts about a token, never the token.
"""
