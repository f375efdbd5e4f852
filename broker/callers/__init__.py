"""Who is calling, and what each may do; knows nothing of users' grants or of Google's answers."""
