"""The checks of `broker doctor`: each part of an installation is read once, and nothing changes."""
