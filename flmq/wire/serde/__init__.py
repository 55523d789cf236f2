"""Convert flmq's dataclasses to protobuf and back: a ``to_proto``/``from_proto`` pair each.

``values`` has scalars and numbers, ``contract`` the ``*Ins`` and ``*Res``, ``envelopes`` what
carries them. ``to_proto`` fills a message that its caller owns: assigning a message to another's
field would copy it, tensors included.
"""
