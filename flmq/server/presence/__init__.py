"""Presence: which clients are there, which are admitted, and which have gone."""
