"""What a person types: ``flmq server``, ``flmq client``, ``flmq demo`` and their kin.

The command line itself is `flmq.cli.main`; nothing is imported here, so that an app of this
package loads without it.
"""
