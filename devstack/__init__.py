"""The embedded world of `make run` and of the tests: nothing in the product imports it."""
