"""A job and its phases: who it is, what is asked in a phase, and what came of it, as data."""
