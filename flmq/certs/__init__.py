"""A development authority: certificates for brokers and clients, made on this machine.

`authority` makes and signs them, `folder` keeps them as files. Needs the extra ``secure``. What
they are for: docs/security.md.
"""

from __future__ import annotations
