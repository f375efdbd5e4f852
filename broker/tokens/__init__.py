"""Handing out: held tokens, one refresh for all who wait, and the warm path in front of it all."""
