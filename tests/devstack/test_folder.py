"""Where `make run` keeps its data."""

from devstack.__main__ import _CHECKOUT


def test_the_default_folder_is_in_the_checkout() -> None:
    assert (_CHECKOUT / "Makefile").is_file()
    assert (_CHECKOUT / "devstack" / "__main__.py").is_file()
