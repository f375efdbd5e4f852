"""The rows of the benchmark, each a module of its own or one of a pair."""
