"""Criteria by which a strategy, or ``ClientManager.sample``, selects the clients to choose from.

By their properties, whether they are here, and whether they failed in recent rounds; combined with
``&``, ``|`` and ``~``::

    FedAvg(criterion=ByProperty(region={"de", "fr"}, gpu=True) & NoRecentFailure(rounds=3))
"""

from __future__ import annotations

from flmq.server.criteria.by_property import ByProperty
from flmq.server.criteria.failures import NoRecentFailure
from flmq.server.criteria.including_away import IncludingAway
from flmq.server.criteria.matching import TooFewMatch
from flmq.server.criterion import Criterion, InvalidCriterion

__all__ = [
    "ByProperty",
    "Criterion",
    "IncludingAway",
    "InvalidCriterion",
    "NoRecentFailure",
    "TooFewMatch",
]
