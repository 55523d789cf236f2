"""Models on their way to clients: published once for all, or sent to the one that asks."""
