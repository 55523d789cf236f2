"""The rig of the hostile broker has teeth: what it does to a job in the clear goes unnoticed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from flmq.common import FitRes, ndarrays_to_parameters, parameters_to_ndarrays
from flmq.testing import fast_retries
from flmq.transport import MODELS, PRESENCE, REPLIES, TASKS, UPLOADS
from flmq.wire import Reply, decode, encode
from tests.end_to_end.federation import Federation, fed_avg, initial
from tests.security.hostile import Passing
from tests.security.plots import On
from tests.security.rigs import HostileMemoryRig, HostileRabbitMQRig, HostileRig
from tests.transport.rigs import MemoryRig, Rig

CLIENTS = ("a", "b", "c")


@pytest.fixture(params=["memory", "rabbitmq"])
def rig(request: pytest.FixtureRequest) -> Iterator[HostileRig]:
    with fast_retries():
        made: HostileRig = (
            HostileMemoryRig()
            if request.param == "memory"
            else HostileRabbitMQRig(request.getfixturevalue("broker_url"))
        )
        yield made
        made.close()


def _model(rig: Rig, size: int = 5) -> bytes:
    federation = Federation(rig)
    federation.serve(*CLIENTS)
    strategy = fed_avg(3, initial_parameters=initial(size))
    server = federation.run(strategy, rounds=2)
    model = server.model()
    assert [closed.fit.accepted for closed in server.watch.rounds()] == [3, 3]
    federation.close()
    return model


@pytest.fixture(scope="module")
def undisturbed() -> Iterator[bytes]:
    rig = MemoryRig()
    yield _model(rig)
    rig.close()


def test_one_that_only_looks_sees_everything_and_changes_no_bit(rig: HostileRig) -> None:
    plain = MemoryRig()
    assert _model(rig, 200_000) == _model(plain, 200_000)
    plain.close()
    assert rig.hostile.failed is None
    seen = {passing.exchange for passing in rig.hostile.seen}
    assert seen >= {TASKS, REPLIES, UPLOADS, PRESENCE, MODELS}
    assert any(passing.is_chunk for passing in rig.hostile.seen)


def test_it_changes_the_bits_of_a_plain_job_unnoticed(rig: HostileRig, undisturbed: bytes) -> None:
    """What `--e2e` is for: nobody is rejected, nobody is silent, and the model is another."""

    def another(passing: Passing) -> list[Passing]:
        reply = decode(passing.body)
        assert isinstance(reply, Reply)
        assert isinstance(reply.res, FitRes)
        tensors = [
            tensor + np.float32(1) for tensor in parameters_to_ndarrays(reply.res.parameters)
        ]
        res = replace(reply.res, parameters=ndarrays_to_parameters(tensors))
        return [passing.with_body(encode(replace(reply, res=res)))]

    rig.hostile.plot = plot = On(lambda p: p.exchange == REPLIES and p.is_from("a"), another)
    assert _model(rig) != undisturbed
    assert rig.hostile.failed is None
    assert plot.done == 2
