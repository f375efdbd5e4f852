"""Fuzzing: every parser and every route, with generated bad input."""
