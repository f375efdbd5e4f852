"""Google's security events (Cross-Account Protection, RISC) and their effects on grants."""
