"""Strategies: which clients a round asks, and how their replies are aggregated. One file each."""

from __future__ import annotations

from flmq.server.strategy.adaptive import FedAdagrad, FedAdam, FedAvgM, FedOpt, FedYogi
from flmq.server.strategy.asynchronous import FedAsync, FedBuff
from flmq.server.strategy.blockwise import Replies, coordinate_wise
from flmq.server.strategy.combine import AllReplies, Combine, Combined, WeightedMean
from flmq.server.strategy.fair import QFedAvg
from flmq.server.strategy.fault_tolerant_fedavg import FaultTolerantFedAvg
from flmq.server.strategy.fedavg import FedAvg
from flmq.server.strategy.heterogeneous import SCAFFOLD, FedNova, FedProx
from flmq.server.strategy.late import LateFitRes, LateReplies
from flmq.server.strategy.partial.train_only import KeepLocal, TrainOnly
from flmq.server.strategy.privacy import (
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    DPFedAvgAdaptive,
    DPFedAvgFixed,
)
from flmq.server.strategy.reply_check import ReplyCheck
from flmq.server.strategy.robust.bulyan import Bulyan
from flmq.server.strategy.robust.distances import squared_distances
from flmq.server.strategy.robust.fedmedian import FedMedian
from flmq.server.strategy.robust.fedtrimmedavg import FedTrimmedAvg
from flmq.server.strategy.robust.krum import Krum, MultiKrum
from flmq.server.strategy.strategy import Strategy
from flmq.server.strategy.trees import FedXgbBagging, FedXgbCyclic, FedXgbNnAvg

__all__ = [
    "SCAFFOLD",
    "AllReplies",
    "Bulyan",
    "Combine",
    "Combined",
    "DPFedAvgAdaptive",
    "DPFedAvgFixed",
    "DifferentialPrivacyClientSideAdaptiveClipping",
    "DifferentialPrivacyClientSideFixedClipping",
    "DifferentialPrivacyServerSideAdaptiveClipping",
    "DifferentialPrivacyServerSideFixedClipping",
    "FaultTolerantFedAvg",
    "FedAdagrad",
    "FedAdam",
    "FedAsync",
    "FedAvg",
    "FedAvgM",
    "FedBuff",
    "FedMedian",
    "FedNova",
    "FedOpt",
    "FedProx",
    "FedTrimmedAvg",
    "FedXgbBagging",
    "FedXgbCyclic",
    "FedXgbNnAvg",
    "FedYogi",
    "KeepLocal",
    "Krum",
    "LateFitRes",
    "LateReplies",
    "MultiKrum",
    "QFedAvg",
    "Replies",
    "ReplyCheck",
    "Strategy",
    "TrainOnly",
    "WeightedMean",
    "coordinate_wise",
    "squared_distances",
]
