"""A pool of processes that call clients' code."""
