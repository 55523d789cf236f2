"""What a broker that nobody trusts can do to a job that is protected from end to end.

Each attempt ends with the bits of the undisturbed run, or somebody is named who did not count; and
what the broker changed or made itself is refused, named and counted. Nothing is unnoticed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import pytest

from flmq.common.phase import Phase
from flmq.e2e.letters import Heading
from flmq.e2e.manifest import Manifest
from flmq.messaging.sealed import seal_body
from flmq.observe.events import Outcome
from flmq.testing import fast_retries
from flmq.transport import (
    MODELS,
    PRESENCE,
    REPLIES,
    TASKS,
    UPLOADS,
    Address,
    Message,
    everybody_key,
    reply_key,
    task_key,
)
from flmq.transport.memory.publisher import MemoryPublisher
from flmq.wire import (
    Begun,
    Body,
    Failure,
    FailureKind,
    JobEnded,
    Presence,
    PresenceKind,
    Receipt,
    ReceiptOutcome,
    Reply,
    RollCall,
    Sealed,
    decode,
    encode,
)
from tests.end_to_end.federation import JOB, Federation, RunningServer, fed_avg, initial
from tests.security.federations import (
    CLIENTS,
    identity,
    job_keys,
    kind_of,
    protected_worker,
    verdict,
)
from tests.security.hostile import HostileBroker, Passing, Plot
from tests.security.plots import (
    Act,
    HoldBack,
    InsteadOfLater,
    On,
    OncePer,
    Replay,
    SwapBodies,
    Which,
    cut_short,
    drop,
    flip,
    grow,
    say,
    set_header,
    to_everyone,
    twice,
)
from tests.security.rigs import HostileMemoryRig, HostileRabbitMQRig, HostileRig

SMALL, LARGE = 5, 60_000
"""Numbers in a model that rides in its task, and in one that goes in chunks."""
IN_CHUNKS_OF_RABBITMQ = 600_000
"""Numbers in a model of three chunks where they have 1 MiB."""
BOTH_SIZES = pytest.mark.parametrize(
    "size", [SMALL, pytest.param(LARGE, marks=pytest.mark.slow)], ids=["small", "large"]
)
CHUNK = 100_000
"""Bytes of the largest message here: a large model then has three chunks."""


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask again soon for what does not come."""
    monkeypatch.setattr("flmq.server.asks.waiting._ASK_AGAIN_EVERY", 0.6)
    monkeypatch.setattr("flmq.server.asks.waiting._LOOK_EVERY", 0.1)
    monkeypatch.setattr("flmq.client.models.reader._ASK_AGAIN", 0.4)
    monkeypatch.setattr("flmq.client.models.reader._QUIET", 0.1)
    monkeypatch.setattr("flmq.client.models.reader._STALLED", 1.0)


@pytest.fixture
def rig() -> Iterator[HostileMemoryRig]:
    with fast_retries():
        made = HostileMemoryRig()
        made.broker.max_message_size = CHUNK
        yield made
        made.close()


@pytest.fixture(params=["memory", pytest.param("rabbitmq", marks=pytest.mark.slow)])
def either(request: pytest.FixtureRequest) -> Iterator[HostileRig]:
    if request.param == "memory":
        yield request.getfixturevalue("rig")
        return
    with fast_retries():
        made = HostileRabbitMQRig(request.getfixturevalue("broker_url"))
        yield made
        made.close()


class Told(logging.Handler):
    """Every line of flmq's log at level WARNING: what a person would read."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def told() -> Iterator[Told]:
    handler = Told()
    logging.getLogger("flmq").addHandler(handler)
    yield handler
    logging.getLogger("flmq").removeHandler(handler)


def run(
    rig: HostileRig,
    plot: Plot,
    size: int = SMALL,
    *,
    rounds: int = 2,
    timeout: float = 60.0,
    all_count: bool = True,
) -> RunningServer:
    """Run a job under a plot, and judge what it came to."""
    rig.hostile.plot = plot
    federation = Federation(rig)
    for name in CLIENTS:
        federation.workers[name] = protected_worker(federation, name)
    start = initial(size)
    strategy = fed_avg(len(CLIENTS), initial_parameters=start)
    server = federation.run(strategy, rounds, timeout, protection=job_keys())
    server.history(30.0 + 2 * timeout)
    federation.close()
    assert rig.hostile.failed is None
    verdict(server, start, all_count=all_count)
    return server


def is_kind(*kinds: str) -> Which:
    return lambda passing: kind_of(passing) in kinds


def task_of(client_id: str) -> Which:
    return lambda passing: passing.is_to(client_id) and kind_of(passing) == "Task"


def reply_of(client_id: str) -> Which:
    return lambda passing: passing.is_from(client_id) and kind_of(passing) == "Reply"


def is_model_chunk(passing: Passing) -> bool:
    return passing.exchange == MODELS


def is_reply_chunk(passing: Passing) -> bool:
    return passing.exchange == UPLOADS and passing.is_chunk


def anything(passing: Passing) -> bool:
    return True


def kind_and_key(passing: Passing) -> str:
    """What tells apart the messages of which each is to be met once."""
    return f"{kind_of(passing)} {passing.exchange} {passing.address.routing_key}"


def manifest_in(seen: Iterable[Passing]) -> Manifest:
    """The manifest of the job, as everybody sees it."""
    for passing in seen:
        if kind_of(passing) == "RollCall":
            sealed = decode(passing.body)
            assert isinstance(sealed, Sealed)
            return Manifest.read(sealed.manifest, [identity("server").public])
    raise AssertionError("no roll call was seen")


def resealed(passing: Passing, sealed: Sealed, by: str, broker: HostileBroker) -> Passing:
    """A reply of the same heading, of another's making."""
    manifest, ids = manifest_in(broker.seen), passing.message
    body = Reply(
        *("task", JOB, 1, Phase.FIT, sealed.sender, 1, b"", 0.0, Failure(FailureKind.REFUSED)),
        run=sealed.run,
    )
    heading = Heading(
        *(sealed.kind, sealed.sender, sealed.recipient, sealed.job, sealed.run),
        ids.message_id,
        ids.correlation_id,
    )
    return passing.with_body(seal_body(body, heading, identity(by).signer, manifest.sealer))


def forged(body: Body, address: Address, **ids: str) -> Passing:
    """A message of the broker's own, in the clear."""
    return Passing(address, Message(encode(body), type=type(body).__name__, **ids))  # type: ignore[arg-type]


# -- reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_it_reads_no_model_reply_metric_or_nonce(either: HostileRig, size: int) -> None:
    start = initial(size)
    server = run(either, Plot(), size)
    secrets = [bytes(tensor)[-16:] for tensor in start.tensors]
    secrets += [server.watch.model()[-16:], b"weight"]  # the name of a metric
    for passing in either.hostile.seen:
        message = passing.message
        shown = passing.body + repr((message.headers, message.message_id)).encode()
        assert not [secret for secret in secrets if secret in shown], kind_of(passing)
        if kind_of(passing) in ("Task", "Reply", "Receipt"):
            assert isinstance(decode(passing.body), Sealed)


# -- losing, repeating, delaying -----------------------------------------------------------------


@BOTH_SIZES
def test_what_it_loses_once_comes_again(rig: HostileMemoryRig, size: int) -> None:
    """The first of each kind to and from everybody: tasks, chunks, replies, receipts, hellos."""
    plot = OncePer(kind_and_key, drop, unless=is_kind("JobEnded", "nothing"))
    run(rig, plot, size)
    assert plot.done >= 10


@pytest.mark.parametrize("which", [task_of("a"), reply_of("a")], ids=["tasks", "replies"])
def test_who_is_kept_from_the_job_is_named_as_silent(rig: HostileMemoryRig, which: Which) -> None:
    plot = On(which, drop)
    server = run(rig, plot, timeout=1.5, all_count=False)
    assert plot.done >= 2
    assert server.watch.words(1)["a"][0] is Outcome.SILENT
    assert server.watch.words(1)["b"][0] is Outcome.ACCEPTED


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_what_it_delivers_twice_counts_once(either: HostileRig, size: int) -> None:
    plot = On(anything, twice)
    run(either, plot, size)
    assert plot.done >= 20


@BOTH_SIZES
def test_the_order_in_which_it_delivers_changes_no_bit(rig: HostileMemoryRig, size: int) -> None:
    plot = HoldBack(is_kind("Task", "Reply", "BlobChunk"))
    run(rig, plot, size)
    assert plot.done >= 5


@BOTH_SIZES
@pytest.mark.parametrize("kind", ["Task", "Reply", "Receipt", "Presence", "RollCall", "Begun"])
def test_what_it_replays_counts_once(rig: HostileMemoryRig, kind: str, size: int) -> None:
    """Each old one again, after each later one: of earlier rounds too."""
    plot = Replay(is_kind(kind), remembered=1 if kind == "RollCall" else 6)
    run(rig, plot, size, rounds=3)
    assert plot.done >= 1


def test_an_earlier_rounds_message_in_place_of_a_later_one_is_no_answer(
    rig: HostileMemoryRig,
) -> None:
    for kind in ("Task", "Reply"):
        plot = InsteadOfLater(is_kind(kind))
        server = run(rig, plot, timeout=1.5, all_count=False)
        assert plot.done >= 3
        assert set(server.watch.words(1)["a"]) & {Outcome.ACCEPTED}
        assert server.watch.words(2)["a"][0] is Outcome.SILENT


# -- changing ------------------------------------------------------------------------------------

CHANGES = {
    "first-bit": flip(0.0),
    "bit-in-the-middle": flip(0.5),
    "last-bit": flip(1.0),
    "cut-in-half": cut_short,
    "empty": lambda passing: [passing.with_body(b"")],
    "a-byte-more": grow,
}
QUICK = ("first-bit", "cut-in-half")
"""Those that are tried with every run of the tests."""


@BOTH_SIZES
@pytest.mark.parametrize(
    "change",
    [pytest.param(each, marks=() if each in QUICK else pytest.mark.slow) for each in CHANGES],
)
def test_what_it_changes_is_refused_and_comes_again(
    either: HostileRig, told: Told, change: str, size: int
) -> None:
    """The first of each kind to and from everybody, and the first chunk of each blob."""
    if size == LARGE and isinstance(either, HostileRabbitMQRig):
        size = IN_CHUNKS_OF_RABBITMQ
    plot = OncePer(kind_and_key, CHANGES[change], unless=is_kind("JobEnded", "nothing"))
    run(either, plot, size)
    assert plot.done >= 10
    assert told.lines


def test_who_is_changed_always_is_named(rig: HostileMemoryRig, told: Told) -> None:
    server = run(rig, On(reply_of("a"), flip(0.5)), timeout=1.5, all_count=False)
    assert server.watch.words(1)["a"][0] is Outcome.SILENT
    assert any("Reply from 'a'" in line for line in told.lines)


@pytest.mark.parametrize(
    ("which", "act"),
    [
        (task_of("a"), say(message_id="another")),
        (is_kind("RollCall"), say(message_id="0" * 32)),
        (is_kind("RollCall"), say(correlation_id="another process")),
        (is_kind("Presence"), say(correlation_id="0" * 32)),
        (reply_of("a"), say(message_id="another", correlation_id="another")),
    ],
    ids=["task-id", "greeting-id", "greeted-process", "greeting-that-is-answered", "reply-ids"],
)
def test_what_is_beside_a_message_is_bound_to_it(
    rig: HostileMemoryRig, which: Which, act: Act
) -> None:
    plot = OncePer(kind_and_key, act, unless=lambda passing: not which(passing))
    run(rig, plot)
    assert plot.done >= 1


@pytest.mark.parametrize("which", [is_model_chunk, is_reply_chunk], ids=["model", "replies"])
@pytest.mark.parametrize(
    "act",
    [
        set_header("x-flmq-blob-index", lambda index: (index + 1) % 3),
        set_header("x-flmq-blob-index", 1 << 20),
        set_header("x-flmq-blob-index", -1),
    ],
    ids=["another-index", "beyond-the-end", "no-index"],
)
def test_a_chunk_fits_its_own_place_alone(rig: HostileMemoryRig, which: Which, act: Act) -> None:
    plot = On(which, act, times=3)
    run(rig, plot, LARGE)
    assert plot.done == 3


def test_dead_letters_tell_it_nothing_of_what_it_changed(rig: HostileMemoryRig) -> None:
    """No reason, which could quote what was sealed, and no digest to try a guess of the model."""
    run(rig, On(is_reply_chunk, flip(1.0), times=3), LARGE)
    reasons = [passing.message.headers.get("x-flmq-reason") for passing in rig.hostile.seen]
    told = {str(reason) for reason in reasons if reason is not None}
    assert told == {"of a protected job: why it is here is in the log of the process that read it"}


def test_chunks_that_it_replays_or_delivers_in_another_order_fit_once(
    rig: HostileMemoryRig,
) -> None:
    for plot in (Replay(is_kind("BlobChunk"), remembered=6), HoldBack(is_reply_chunk)):
        run(rig, plot, LARGE)
        assert plot.done >= 3


def test_chunks_of_two_blobs_cannot_be_exchanged(rig: HostileMemoryRig) -> None:
    plot = SwapBodies(
        lambda passing: is_reply_chunk(passing) and passing.is_from("a"),
        lambda passing: is_reply_chunk(passing) and passing.is_from("b"),
        times=3,
    )
    run(rig, plot, LARGE)
    assert plot.done == 3


# -- the question how large a message may be ------------------------------------------------------


def is_the_question(passing: Passing) -> bool:
    return len(passing.body) > 1 << 20


def test_a_question_that_it_swallows_is_answered_by_what_it_refuses(
    rig: HostileMemoryRig, told: Told
) -> None:
    """It says that it takes 1 MiB, to everybody, and takes 100,000 bytes."""
    plot = On(is_the_question, drop)
    run(rig, plot, 2 * LARGE)
    assert plot.done == 1 + len(CLIENTS)
    assert sum("large bodies go in chunks of" in line for line in told.lines) == plot.done


def test_a_question_that_it_never_answers_is_waited_for_once(
    rig: HostileMemoryRig, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither does the server wait for ever, nor does a client keep its reply for ever."""
    monkeypatch.setattr("flmq.messaging.sizes._PATIENCE", 0.3)
    monkeypatch.setitem(MemoryPublisher.close.__kwdefaults__ or {}, "timeout", 0.1)
    rig.memory.max_message_size = 1 << 24
    rig.memory.unanswered = lambda message: len(message.body) > 1 << 20
    run(rig, Plot(), LARGE, rounds=3)
    assert sum("has not said for" in line for line in told.lines) == 1 + len(CLIENTS)


# -- exchanging ----------------------------------------------------------------------------------


@pytest.mark.parametrize("of", [task_of, reply_of], ids=["tasks", "replies"])
def test_what_is_one_clients_is_nothing_to_another(
    either: HostileRig, told: Told, of: Callable[[str], Which]
) -> None:
    plot = SwapBodies(of("a"), of("b"), times=2)
    run(either, plot)
    assert plot.done == 2
    assert told.lines


def test_a_task_that_is_delivered_to_everybody_is_its_clients_alone(
    rig: HostileMemoryRig, told: Told
) -> None:
    plot = On(task_of("a"), to_everyone(*CLIENTS))
    run(rig, plot)
    assert plot.done == 2
    assert any("Task from '!server' to 'a'" in line for line in told.lines)


def test_a_reply_under_anothers_key_is_still_its_clients(rig: HostileMemoryRig) -> None:
    elsewhere = Address(REPLIES, reply_key("main", "b", JOB))
    plot = On(reply_of("a"), lambda passing: [passing.to(elsewhere)])
    run(rig, plot)
    assert plot.done == 2


def test_what_is_of_another_job_counts_in_none(rig: HostileMemoryRig, told: Told) -> None:
    """Two jobs of one server: the tasks and replies of one go to the other as well."""

    def both(passing: Passing) -> list[Passing]:
        words = passing.words
        other = {JOB: "other", "other": JOB}[words[2]]
        return [passing, passing.to(Address(REPLIES, reply_key("main", words[1], other)))]

    rig.hostile.plot = plot = On(lambda passing: passing.exchange == REPLIES, both)
    federation = Federation(rig)
    for name in CLIENTS:
        federation.workers[name] = protected_worker(federation, name)
    start = initial(SMALL)
    servers = [
        federation.run(
            fed_avg(3, initial_parameters=start), 2, 20.0, job=job, protection=job_keys()
        )
        for job in (JOB, "other")
    ]
    for server in servers:
        server.history()
        verdict(server, start, all_count=True)
    federation.close()
    assert plot.done == 12
    assert rig.hostile.failed is None
    assert any("made for somewhere else" in line for line in told.lines)


def test_what_is_of_an_earlier_run_counts_no_more(rig: HostileMemoryRig) -> None:
    """All that was said in an earlier run of the job, by the same parties, is said again."""
    run(rig, Plot())
    earlier = [
        passing
        for passing in rig.hostile.seen
        if kind_of(passing) in ("Task", "Reply", "Receipt", "RollCall", "JobEnded", "Presence")
    ]
    assert len(earlier) >= 20
    run(rig, On(task_of("a"), lambda passing: [passing, *earlier], times=1))


# -- making --------------------------------------------------------------------------------------


def in_the_clear(passing: Passing, seen: Passing) -> list[Passing]:
    """What a broker says without any key, having read what is not sealed."""
    hello = decode(seen.body)
    assert isinstance(hello, Sealed)
    task = decode(passing.body)
    assert isinstance(task, Sealed)
    ids, run_id, later = passing.message.message_id, task.run, time.time_ns() // 1_000_000 + 9999
    to_a, to_all = Address(TASKS, task_key("main", "a")), Address(TASKS, everybody_key("main"))
    here = Address(PRESENCE, "main.a")
    heard = Presence(PresenceKind.HELLO, "a", "main", "another", heartbeat_seconds=3600.0)
    return [
        forged(JobEnded(JOB, later, "over", run_id), to_all),
        forged(RollCall(JOB, later, 3600.0, run_id), to_all),
        forged(RollCall(JOB, 1, 1.0, run_id, refused="are not wanted"), to_a),
        forged(Receipt(ids, JOB, 1, Phase.FIT, "a", ReceiptOutcome.REJECTED, "no"), to_a),
        forged(heard, here),
        forged(replace(heard, kind=PresenceKind.BYE), here),
        # So many deaths in a task that its client would give it up.
        *(forged(Begun(ids, "a", f"dead-{number}"), to_a) for number in range(4)),
    ]


def test_what_it_says_in_the_clear_counts_for_nothing(either: HostileRig, told: Told) -> None:
    """Hello, bye, roll call, refusal, receipt, the job's end: of a broker that has no key."""
    seen: list[Passing] = []

    def look(passing: Passing) -> list[Passing]:
        if kind_of(passing) == "Presence" and isinstance(decode(passing.body), Sealed):
            seen.append(passing)
        if not task_of("a")(passing):
            return [passing]
        return [*in_the_clear(passing, seen[0]), passing, *in_the_clear(passing, seen[0])]

    run(either, On(anything, look))
    assert any("without keys" in line for line in told.lines)


@pytest.mark.parametrize("by", ["a-stranger", "b"])
def test_what_others_sign_in_a_clients_name_is_refused(
    rig: HostileMemoryRig, told: Told, by: str
) -> None:
    """A reply of client a, made by who has another key: even that of a client that is trusted."""

    def remade(passing: Passing) -> list[Passing]:
        sealed = decode(passing.body)
        assert isinstance(sealed, Sealed)
        return [resealed(passing, sealed, by, rig.hostile), passing]

    plot = On(reply_of("a"), remade)
    run(rig, plot)
    assert plot.done == 2
    assert any("does not have the signature" in line for line in told.lines)


def test_deaths_that_others_sign_for_a_client_give_no_task_up(
    rig: HostileMemoryRig, told: Told
) -> None:
    """Notes that its task was begun by four processes: of a client that is trusted, and its own."""

    def with_notes(passing: Passing) -> list[Passing]:
        task = decode(passing.body)
        assert isinstance(task, Sealed)
        to_a, notes = Address(TASKS, task_key("main", "a")), []
        for sender in ("a", "b"):
            for number in range(4):
                note = Begun(passing.message.message_id, "a", f"dead-{number}")
                heading = Heading("Begun", sender, "a")
                data = seal_body(note, heading, identity("b").signer)
                notes.append(Passing(to_a, Message(data, type="Sealed")))
        return [*notes, passing, *notes]

    plot = On(task_of("a"), with_notes)
    run(rig, plot)
    assert plot.done == 2
    assert any("Begun from" in line for line in told.lines)
