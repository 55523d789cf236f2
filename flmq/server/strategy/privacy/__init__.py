"""Strategies with differential privacy: a strategy around any other, which clips and adds noise."""

from __future__ import annotations

from flmq.server.strategy.privacy.adaptive import (
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
)
from flmq.server.strategy.privacy.dpfedavg import DPFedAvgAdaptive, DPFedAvgFixed
from flmq.server.strategy.privacy.fixed import (
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideFixedClipping,
)

__all__ = [
    "DPFedAvgAdaptive",
    "DPFedAvgFixed",
    "DifferentialPrivacyClientSideAdaptiveClipping",
    "DifferentialPrivacyClientSideFixedClipping",
    "DifferentialPrivacyServerSideAdaptiveClipping",
    "DifferentialPrivacyServerSideFixedClipping",
]
