"""A report: one file of HTML that shows a run as the page does, with no server and no network."""

__all__: list[str] = []
