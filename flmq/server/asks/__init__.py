"""Asks: whom a job asks what, in phases or one by one, and what comes of each."""
