"""Resumption: what a run leaves behind, and how a later server goes on with it."""
