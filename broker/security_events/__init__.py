"""What Google tells the broker of its own accord: security events, and what they do to grants."""
