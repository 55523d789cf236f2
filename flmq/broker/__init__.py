"""Find or start a RabbitMQ: a given URL, a private node, a container, or a persistent node.

`find.obtain_broker` decides; `persistent_nodes` keeps a node running on a laptop; `doctor` says
what is missing.
"""

from __future__ import annotations
