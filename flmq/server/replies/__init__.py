"""Receive replies whole, write them down, count them, and answer each with a receipt."""
