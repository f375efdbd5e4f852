"""A model-based test of the whole system: random histories on real parts, compared with a model."""
