"""The program of `helm test`: requests each listener. Arguments: public, internal, ops."""

import sys
import time
import urllib.error
import urllib.request


def status(url: str) -> int | str:
    """Return the HTTP status of a GET, or the reason for no response."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError as error:
        return str(error)


def main(public: str, internal: str, ops: str) -> int:
    """Check each expectation, with ten tries: a network policy may need seconds to take effect."""
    expectations = (
        (ops + "/readyz", {200}),
        (ops + "/metrics", {200}),
        (internal + "/v1/users/x/grants", {401}),
        (internal + "/readyz", {404}),
        (public + "/connections", {200, 401, 403}),
        (public + "/v1/users/x/grants", {404}),
        (public + "/metrics", {404}),
    )
    wrong = 0
    for url, expected in expectations:
        for _ in range(10):
            got = status(url)
            if got in expected:
                break
            time.sleep(2)
        is_right = got in expected
        wrong += not is_right
        one_of = " or ".join(map(str, sorted(expected)))
        print(f"{'ok' if is_right else 'FAILED'} {url}: {got}, expected {one_of}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
