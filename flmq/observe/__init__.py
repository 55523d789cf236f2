"""Observing a run: its events, and what is made of them for people and programs."""
