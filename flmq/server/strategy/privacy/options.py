"""The options that all private strategies have beyond Flower's."""

from __future__ import annotations

from dataclasses import InitVar, dataclass

from flmq.common.noise import new_secret
from flmq.server.strategy.asynchronous import Asynchronous
from flmq.server.strategy.late import LateReplies
from flmq.server.strategy.options import InvalidStrategyOption, check_number
from flmq.server.strategy.reply_check import ReplyCheck
from flmq.server.strategy.strategy import Strategy

__all__ = ["LateRepliesNotPrivate", "PrivacyOptions", "check_wrapped"]


class LateRepliesNotPrivate(InvalidStrategyOption):
    """Late replies should count, and a client could then change a round twice."""

    def __init__(self) -> None:
        """Say what to do."""
        super().__init__(
            "late replies cannot count under differential privacy, as a client would have two "
            "replies in one round: leave late_replies (--late) at drop"
        )


@dataclass(kw_only=True, eq=False, repr=False)
class PrivacyOptions:
    """Keyword arguments of every private strategy; Flower has none of them."""

    delta: float = 1e-5
    """At which epsilon is told. Choose it below 1 / (number of clients)."""
    num_clients: int | None = None
    """How many clients a round samples from, for an epsilon that is amplified by sampling. Give it
    only if which clients a round asked stays secret from those whom privacy protects from."""
    noise_seed: InitVar[int | None] = None
    """Of the noise; a secret. None for 256 bits of the operating system's entropy."""

    def __post_init__(self, noise_seed: int | None) -> None:
        """Check ranges, and make the secret of the noise."""
        check_number(self, "delta", above=0, below=1)
        if self.num_clients is not None:
            check_number(self, "num_clients", least=1, whole=True)
        if noise_seed is not None and (
            isinstance(noise_seed, bool) or not isinstance(noise_seed, int) or noise_seed < 0
        ):
            raise InvalidStrategyOption(
                "noise_seed is not an int of 0 or more: leave it out, or give secrets.randbits(256)"
            )
        # Bytes, which no error and no log shows: a run's fingerprint is of plain options alone.
        self._secret = new_secret(noise_seed)


def check_wrapped(strategy: object) -> None:
    """Check that a private strategy can be made of ``strategy``.

    Raises:
        InvalidStrategyOption: it cannot; says why.
    """
    if not isinstance(strategy, Strategy):
        got = f"the class {strategy.__name__}" if isinstance(strategy, type) else repr(strategy)
        raise InvalidStrategyOption(f"strategy is {got}: give a strategy, such as FedAvg()")
    name = type(strategy).__name__
    if isinstance(strategy, PrivacyOptions):
        raise InvalidStrategyOption(f"strategy is {name}, private already: wrap it once")
    if isinstance(strategy, Asynchronous):
        raise InvalidStrategyOption(
            f"strategy is {name}, which has no rounds: noise and epsilon are those of a round"
        )
    if strategy.late_replies is not LateReplies.DROP:
        raise LateRepliesNotPrivate
    sends_more = type(strategy).global_model is not Strategy.global_model
    if sends_more or strategy.reply_check is not ReplyCheck.LIKE_SENT:
        raise InvalidStrategyOption(
            f"strategy is {name}, whose clients do not send models like the one that they got: "
            "there is no update to clip"
        )
