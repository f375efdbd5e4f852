"""What `make check` looks for beside lint and types, and what a tag needs before its release."""
