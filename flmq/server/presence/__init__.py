"""Presence: which clients are there, who may come in, and who has gone."""
