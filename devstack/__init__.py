"""The embedded stack of `make run` and of the tests. Nothing in the product imports it."""
