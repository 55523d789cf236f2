"""The page's web server: its routes, its stream of changes, and who may ask."""

__all__: list[str] = []
