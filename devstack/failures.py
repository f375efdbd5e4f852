"""The two ways in which `make run` ends early."""


class DevstackError(Exception):
    """Something a person has to mend; the message says what and how, and may hold a log's end."""


class Stopped(BaseException):
    """Ctrl-C or SIGTERM came. Not an `Exception`, so that no handler of failures takes it."""
