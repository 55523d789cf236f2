"""Data to try federations with, and seeded ways to partition it among clients."""
