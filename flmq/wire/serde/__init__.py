"""Between flmq's dataclasses and protobuf's messages: a ``to_proto``/``from_proto`` pair each.

``values`` has scalars and numbers, ``contract`` the ``*Ins`` and ``*Res``, ``envelopes`` what
carries them. ``to_proto`` fills a message that its caller owns: a message that is assigned to
another's field is copied, tensors included.
"""
