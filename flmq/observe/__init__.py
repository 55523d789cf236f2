"""Observing a run: its events, and what is made of them for people and programs.

A module each: ``events`` that a run tells and the ``bus`` that brings them to observers;
``past_rounds`` of a journal as events; read models: ``run_state`` (what the live view draws),
``remarks``, ``measures``, ``stragglers``, ``learned``; and what stays on the disk: ``run_log``,
``record``, which the ``recorder`` keeps, and ``recorded`` runs.
"""
