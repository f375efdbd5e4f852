"""Back to the beginning between two tests."""

import threading

from devstack.google_standin.world import Manners, World


def reset_world(world: World) -> None:
    """Forget accounts' grants, tokens, faults, the log and all changed manners.

    Clients and accounts are again as at the start; the signing key and the address stay.
    """
    world.holds.release_all()
    world.faults.clear()
    world.state.forget_everything()
    world.manners = Manners()
    world.requests.clear()
    world.issued.clear()
    world.delivered.clear()
    world.stopping.set()
    world.stopping = threading.Event()
