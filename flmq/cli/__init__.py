"""The command line: ``flmq server``, ``flmq client``, ``flmq demo`` and others.

It starts in `flmq.cli.main`; nothing is imported here, so that an app in this package loads without
it.
"""
