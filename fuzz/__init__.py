"""Bad input in bulk: every parser and every route, tried with what no person would think of."""
