"""Replies: heard, taken in whole, written down, counted, and answered with a receipt."""
