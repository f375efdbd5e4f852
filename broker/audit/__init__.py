"""The audit trail after it was written: read, verified, and ended when its time is over."""
