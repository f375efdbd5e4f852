"""The encrypted table of grants: the model, how tokens are sealed, the store, and its replicas."""
