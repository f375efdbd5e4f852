"""The sealed table of grants: what a grant is, how its tokens are sealed, how it is stored."""
