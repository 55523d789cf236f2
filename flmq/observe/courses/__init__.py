"""Where the time of phases and rounds went, along the courses of their tasks."""

__all__: list[str] = []
