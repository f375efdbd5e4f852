"""Children that don't outlive us, even if we are killed before we can stop them (Linux only)."""

import ctypes
import signal
import sys
import threading
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def end_with_parent(signal_number: signal.Signals) -> Callable[[], None] | None:
    """A `preexec_fn` for `Popen`: the kernel signals the child when the thread that made it ends.

    None where that can't be had, or where the thread may well end before the process does.
    """
    if sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        return None
    # Loaded before the fork: between fork and exec nothing but the call itself is safe.
    prctl = ctypes.CDLL(None).prctl

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal_number))

    return ask
