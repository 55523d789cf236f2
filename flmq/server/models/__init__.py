"""Deliver models to clients: published once for all, or sent to the one that asks."""
