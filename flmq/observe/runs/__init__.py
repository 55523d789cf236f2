"""Runs on disk, whether finished, running or dead: as records read bit by bit, and compared."""

__all__: list[str] = []
