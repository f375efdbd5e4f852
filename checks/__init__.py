"""What `make check` looks for beside lint and types: known vulnerabilities, secrets in files."""
