"""Data to try federations on, and seeded ways to part it among clients."""
