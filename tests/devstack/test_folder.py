"""Where `make run` keeps its data."""

from devstack.processes import CHECKOUT


def test_the_default_folder_is_in_the_checkout() -> None:
    assert (CHECKOUT / "Makefile").is_file()
    assert (CHECKOUT / "devstack" / "__main__.py").is_file()
