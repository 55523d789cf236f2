"""Runs without rounds: who is asked next, what goes into a buffer, and the loop of both."""
