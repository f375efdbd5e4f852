"""Requests a token repeatedly, as a service on the callers' network does, until SIGTERM.

Runs alone in a container: `asking.py USER`, with the caller's key in KEY. It keeps its connections,
tries each address of the name, and repeats a GET whose connection broke at most twice, after a
pause. The last line on stdout is JSON: the number of answers of each kind.
"""

import http.client
import json
import os
import signal
import sys
import threading
import time
from collections import Counter

_THREADS = 4
_TIMEOUT_SECONDS = 15.0
_PAUSES_SECONDS = 0.1, 0.5
"""Before a retry: a broker that is being killed still accepts connections for a moment."""


class _Connections(threading.local):
    """A connection per thread. It is opened again after `close`."""

    def __init__(self) -> None:
        self.of_thread = http.client.HTTPConnection("broker", 8001, timeout=_TIMEOUT_SECONDS)


class _Load:
    def __init__(self, user: str, key: str) -> None:
        self.outcomes: Counter[str] = Counter()
        self.ended = threading.Event()
        self._path = f"/v1/users/{user}/token"
        self._headers = {"Authorization": f"Bearer {key}"}
        self._connections = _Connections()

    def run(self) -> None:
        while not self.ended.is_set():
            self.outcomes[self._request_with_retries()] += 1

    def _request_with_retries(self) -> str:
        for pause in _PAUSES_SECONDS:
            try:
                return self._request()
            except (OSError, http.client.HTTPException):
                self._connections.of_thread.close()
                self.outcomes["repeated"] += 1
                time.sleep(pause)
        try:
            return self._request()
        except (OSError, http.client.HTTPException) as error:
            self._connections.of_thread.close()
            return f"FAILED: {error!r}"

    def print_totals(self) -> None:
        sys.stdout.write(json.dumps(dict(self.outcomes)) + "\n")
        sys.stdout.flush()

    def _request(self) -> str:
        connection = self._connections.of_thread
        connection.request("GET", self._path, headers=self._headers)
        answer = connection.getresponse()
        answer.read()
        return str(answer.status)


def main() -> None:
    load = _Load(sys.argv[1], os.environ["KEY"])
    signal.signal(signal.SIGTERM, lambda *_: load.ended.set())
    threads = [threading.Thread(target=load.run) for _ in range(_THREADS)]
    for thread in threads:
        thread.start()
    while not load.ended.wait(0.2):
        load.print_totals()
    for thread in threads:
        thread.join()
    load.print_totals()


if __name__ == "__main__":
    main()
