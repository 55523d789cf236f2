"""What befell a run, on disk: its servers, presence, outages, notes and log lines."""

__all__: list[str] = []
