"""What handing out a token costs: the warm fetch beside a bare ASGI app, measured in one run."""
