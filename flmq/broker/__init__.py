"""Where a RabbitMQ comes from: a given URL, a private node, a container, a standing broker.

`find.obtain_broker` decides; `persistent_nodes` keeps one up for a laptop; `doctor` says what is
missing.
"""

from __future__ import annotations
