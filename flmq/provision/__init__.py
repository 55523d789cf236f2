"""Provision: all that a federation needs on its brokers, made beforehand from one file.

What each user may do is made by pure functions (`flmq.provision.permissions`).
"""
