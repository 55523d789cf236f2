"""Which strategies' replies a site's aggregator may add up, and why those of others come whole."""

from __future__ import annotations

from flmq.server.strategy.combine import Combine, WeightedMean
from flmq.server.strategy.late import LateReplies
from flmq.server.strategy.reply_check import ReplyCheck
from flmq.server.strategy.strategy import Strategy
from flmq.server.strategy.wrapping import Wrapping, layers

__all__ = ["why_whole"]


def why_whole(strategy: Strategy, combine: Combine | None) -> str:
    """Return why a strategy needs each reply of a round by itself; empty: sums of some serve it.

    Sums serve it if all that becomes of replies' parameters is their exact weighted mean, and
    whether a reply counts follows from the model alone. ``combine`` is what it gave for the
    round; None: it does not stream.
    """
    name = type(strategy).__name__
    if combine is None:
        return f"{name} reads the parameters of each reply"
    if type(combine) is not WeightedMean:
        return f"{name} combines replies by {type(combine).__name__}, not by their weighted mean"
    if strategy.late_replies is not LateReplies.DROP:
        return "late replies count in a later round"
    if strategy.reply_check is not ReplyCheck.LIKE_SENT:
        return f"{name} does not check that replies are like what was sent"
    for layer in layers(strategy):
        own = type(layer).check_fit_res not in (Strategy.check_fit_res, Wrapping.check_fit_res)
        if own or "check_fit_res" in vars(layer):
            return f"{type(layer).__name__} checks each reply by a rule of its own"
    return ""
