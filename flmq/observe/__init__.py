"""Observe a run: its events, and what is derived from them for people and programs.

``events`` defines the events and ``bus`` delivers them to observers; ``past_rounds`` reads a
journal as events. Read models: ``run_state`` (drawn by the live view), ``remarks``, ``measures``,
``stragglers``, ``learned``. On disk: ``run_log``, ``record``, written by ``recorder``, and
``recorded`` runs.
"""
