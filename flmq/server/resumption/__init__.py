"""Resumption: what a run leaves behind, and how a later server resumes it."""
