"""Hostile input: every decoder fed with what no peer would send, by mutators that know its form."""
