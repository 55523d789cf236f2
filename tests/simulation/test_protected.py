"""A simulation whose ends sign and seal what they say: the plain one's bits, on threads or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flmq.common.errors import UsageError
from flmq.e2e.keys import Identity, save_identity
from flmq.observe.events import Note
from flmq.server import ServerConfig
from flmq.simulation import start_simulation
from flmq.wire import Sealed, decode
from tests.end_to_end.federation import Nudge, Watch, fed_avg, initial
from tests.security.federations import kind_of
from tests.security.hostile import HostileMemoryBroker

LARGE = 600_000
"""Numbers of a model that is published in chunks."""


def simulated(size: int = 5, **options: Any) -> Watch:
    watch = Watch()
    start_simulation(
        client_fn=lambda context: Nudge(context.client_id),
        num_clients=3,
        strategy=fed_avg(3, initial_parameters=initial(size), fraction_evaluate=1.0),
        config=ServerConfig(num_rounds=2),
        observers=(watch,),
        **options,
    )
    return watch


@pytest.mark.parametrize("where", [{"threads": 2}, {"max_workers": 2}], ids=["threads", "pool"])
def test_it_has_the_bits_of_a_plain_one_and_says_nothing_in_the_clear(
    monkeypatch: pytest.MonkeyPatch, where: dict[str, int]
) -> None:
    broker = HostileMemoryBroker()
    monkeypatch.setattr("flmq.simulation.app.MemoryBroker", lambda: broker)
    watch = simulated(LARGE, e2e=True, **where)
    monkeypatch.undo()
    assert watch.model() == simulated(LARGE, **where).model()
    assert [note for note in watch.of(Note) if "signed by server (" in note.text]
    kinds = {kind_of(passing) for passing in broker.seen}
    assert kinds >= {"Task", "Reply", "Receipt", "Presence", "RollCall", "JobEnded", "BlobChunk"}
    for passing in broker.seen:
        if kind_of(passing) not in ("BlobChunk", "nothing"):
            assert isinstance(decode(passing.body), Sealed)


def keys_in(folder: Path, *names: str) -> Path:
    for name in names:
        save_identity(Identity.new(name), folder)
    return folder


def test_keys_may_be_given(tmp_path: Path) -> None:
    folder = keys_in(tmp_path, "0", "1", "2", "server", "somebody-else")
    watch = simulated(e2e=True, keys=folder)
    assert watch.model() == simulated().model()
    (said,) = [note.text for note in watch.of(Note) if "end to end" in note.text]
    assert said.endswith("trusts 3 clients")


@pytest.mark.parametrize(
    ("names", "options", "said"),
    [
        (["0", "1", "server"], {"e2e": True}, "no private key of 2: `flmq keys new 2 --dir "),
        (["0", "1", "2"], {"e2e": True}, "no private key of server: "),
        ([], {"e2e": True}, "there is no private key"),
        (["0", "1", "2", "server"], {}, "keys are for e2e: give e2e=True too"),
    ],
)
def test_keys_that_are_missing_or_not_wanted_are_refused(
    tmp_path: Path, names: list[str], options: dict[str, bool], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        simulated(keys=keys_in(tmp_path, *names), **options)
