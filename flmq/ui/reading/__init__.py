"""Run folders as the JSON that the page shows: read only, whatever their state."""

__all__: list[str] = []
