"""The connections page: a user sees and withdraws connections, and connects accounts again."""
