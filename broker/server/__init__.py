"""The HTTP/1.1 server: everything that uses uvicorn's private API."""
