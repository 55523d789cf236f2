"""One disturbed run, from the start of its processes to the end of the last one."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from flmq.common.errors import PeerError
from flmq.transport import (
    DEAD,
    MODELS,
    client_queue,
    lock_queue,
    presence_queue,
    replies_queue,
)
from flmq.wire import Task, decode
from tests.chaos import program
from tests.chaos.hostile import forget_forged, send_hostile
from tests.chaos.program import Variant
from tests.chaos.schedule import SERVER, Fault, Kind, Schedule, client_names
from tests.chaos.stage import Stage
from tests.chaos.supervisor import Supervisor

__all__ = [
    "JOB",
    "SEED",
    "Director",
    "Run",
    "Script",
    "Training",
    "client_command",
    "play",
    "server_command",
    "until",
    "until_over",
]

JOB = "chaos"
SEED = 7
_FLMQ = str(Path(sys.executable).parent / "flmq")
_PROGRAM = program.__file__
_DRAIN_SECONDS = 30.0
_CHILDREN_SECONDS = 5.0
_POLL = 0.05
_STARTS_WITHIN = 10.0
"""Seconds for which a fault waits for a process that is just starting."""


@dataclass(frozen=True, slots=True)
class Training:
    """One task of one client: what the spool and the diary know of it."""

    client: str
    phase: str
    server_round: int


@dataclass(slots=True)
class Run:
    """What became of a schedule."""

    schedule: Schedule
    folder: Path
    seconds: float = 0.0
    ended: bool = False
    """Whether the job came to its end in time."""
    hits: Counter[str] = field(default_factory=Counter)
    """Crash points at which a process died."""
    faults: Counter[Kind] = field(default_factory=Counter)
    """Disturbances from outside that came to pass."""
    lives: Counter[str] = field(default_factory=Counter)
    finished: Counter[Training] = field(default_factory=Counter)
    """Trainings whose reply was in a spool when their client was killed: begun so often then."""
    depths: dict[str, int] = field(default_factory=dict)
    """Messages left in each queue that is left."""
    strays: list[int] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)

    @property
    def runs_dir(self) -> Path:
        """Where the job's folder is."""
        return self.folder / "runs"

    @property
    def state_dir(self) -> Path:
        """Where the clients' spools are."""
        return self.folder / "state"

    @property
    def diary(self) -> Path:
        """The clients' own account."""
        return self.folder / "diary"

    @property
    def gate(self) -> Path:
        """A file without which no training ends: a script makes it when it is ready."""
        return self.folder / "gate"

    @property
    def over(self) -> Path:
        """A file that is there when children that were left behind may end."""
        return self.folder / "over"

    def begun(self) -> list[tuple[Training, int]]:
        """Trainings begun, in order, and by which process."""
        return self._lines("begin")

    def done(self) -> list[tuple[Training, int]]:
        """Trainings that came to the end of the client's own code."""
        return self._lines("end")

    def spooled(self) -> list[Path]:
        """Files in the clients' spools."""
        return list(self.state_dir.glob("*/spool/*"))

    def _lines(self, wanted: str) -> list[tuple[Training, int]]:
        if not self.diary.exists():
            return []
        lines = [line.split() for line in self.diary.read_text("ascii").splitlines()]
        return [
            (Training(client, phase, int(server_round)), int(pid))
            for word, client, phase, server_round, pid in lines
            if word == wanted
        ]

    def note_spool(self, client: str) -> None:
        """Remember what a client that was just killed had finished: it must not begin it again."""
        begun = Counter(training for training, _ in self.begun())
        for training in _finished(self.state_dir / client / "spool"):
            self.finished[training] = begun[training]


def _finished(spool: Path) -> list[Training]:
    """Tasks in a spool that have their reply there."""
    found = []
    for path in spool.glob("*.task"):
        if path.with_suffix(".reply").exists():
            try:
                task = decode(path.read_bytes()[:-32])
            except PeerError:
                continue
            assert isinstance(task, Task)
            found.append(Training(task.client_id, task.phase.value, task.server_round))
    return found


Script = Callable[[Supervisor, Run], None]
"""What is done to a run once everybody is started; it returns when the job is over."""


def server_command(schedule: Schedule, runs_dir: Path, job: str = JOB) -> list[str]:
    """What a person types to run the job."""
    return [
        *(_FLMQ, "server", f"{_PROGRAM}:server", f"--job={job}", f"--seed={SEED}"),
        *(f"--runs-dir={runs_dir}", "--wait-timeout=240"),
        *("-c", f"variant={schedule.variant.value}", "-c", f"clients={schedule.clients}"),
        *("-c", f"rounds={schedule.rounds}"),
        *(["--keep-replies"] if schedule.variant is Variant.BUFFERED else []),
    ]


def client_command(schedule: Schedule, client: str, state_dir: Path) -> list[str]:
    """What a person types to serve as a client."""
    command = [_FLMQ, "client", f"{_PROGRAM}:client", f"--client-id={client}"]
    command += ["--max-deaths=0"]  # whatever the schedule kills in one task, it is innocent
    if schedule.variant is Variant.DISKLESS:
        return [*command, "--ack=result"]
    return [*command, f"--state-dir={state_dir}"]


def _environment(run: Run, url: str) -> dict[str, str]:
    """What the processes of a run have in their environment."""
    forks = {program.FORKS: str(run.over)} if run.schedule.forks else {}
    return forks | {
        "FLMQ_BROKER_URL": url,
        "FLMQ_HEARTBEAT": "1",
        program.DIARY: str(run.diary),
        program.GATE: str(run.gate),
        program.TRAINING_SECONDS: str(run.schedule.training_seconds),
    }


def until(condition: Callable[[], bool], what: str, timeout: float = 120.0) -> float:
    """Wait for ``what`` in a script; the seconds it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < timeout, f"in vain: {what}"
        time.sleep(0.02)
    return time.monotonic() - started


def until_over(
    supervisor: Supervisor, run: Run, timeout: float = 120.0, server: str = SERVER
) -> None:
    """Wait in a script for the end of the job, which is that of ``server``."""
    supervisor.wait(server, timeout)
    run.ended = supervisor.exit_status(server) == 0


class Scene(Protocol):
    """Where a run can be played: before one broker (`Stage`), a cluster, or several sites."""

    @property
    def url(self) -> str:
        """Where processes go."""

    def set(self) -> None:
        """Prepare for a run."""

    def placed(self, member: str, argv: Sequence[str]) -> Sequence[str]:
        """The command of a process where it belongs."""

    def calm(self) -> None:
        """End every disturbance that lasts."""

    def clear(self) -> None:
        """Remove what a run left."""

    def depths(self, names: Sequence[str]) -> dict[str, int]:
        """Messages that are ready in each of these queues that exists."""


def play(
    stage: Scene,
    schedule: Schedule,
    folder: Path,
    *,
    timeout: float = 240.0,
    script: Script | None = None,
    first: Script | None = None,
    may_end: Mapping[str, Sequence[int]] | None = None,
) -> Run:
    """Run a job to its end while everything in ``schedule``, or ``script``, is done to it.

    ``first`` starts what is there before server and clients.
    ``may_end`` has exit statuses by which processes may end besides those of success.
    """
    folder.mkdir(parents=True)
    run = Run(schedule, folder)
    stage.set()
    started = time.monotonic()
    names = client_names(schedule.clients)
    with Supervisor(_environment(run, stage.url), folder, run.note_spool) as supervisor:
        if first is not None:
            first(supervisor, run)
        commands = {SERVER: server_command(schedule, run.runs_dir)}
        commands |= {name: client_command(schedule, name, run.state_dir) for name in names}
        for name, command in commands.items():
            crashes = schedule.crashes.get(name, ())
            placed = stage.placed(name, command)
            supervisor.start(name, placed, crashes, may_end.get(name, ()) if may_end else ())
        if script is None:
            assert isinstance(stage, Stage), "schedules are for a stage; others want a script"
            run.gate.touch()
            StageDirector(stage, supervisor, run).direct(timeout)
        else:
            script(supervisor, run)
        run.seconds = time.monotonic() - started
        _finish(stage, supervisor, run, names)
    run.over.touch()
    deadline = time.monotonic() + _CHILDREN_SECONDS
    while (strays := supervisor.strays()) and time.monotonic() < deadline:
        time.sleep(_POLL)
    run.strays = strays
    stage.clear()
    return run


class Director:
    """Does what the schedule says, when it says it, until the job is over."""

    def __init__(self, supervisor: Supervisor, run: Run) -> None:
        """Direct ``run``, whose processes ``supervisor`` has started."""
        self._supervisor = supervisor
        self._run = run
        self._faults = list(run.schedule.faults)
        self._endings: list[tuple[float, Callable[[], None]]] = []

    def direct(self, timeout: float) -> None:
        """Return when the job is over, somebody is in trouble, or after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        due: float | None = None
        while self._going_on():
            now = time.monotonic()
            if now > deadline:
                self._run.troubles.append(f"the job did not end within {timeout:g} s")
                self._supervisor.dump_stacks()
                break
            self._end_what_is_over(now)
            if due is None and self._run.diary.exists():
                due = now
            over = -1.0 if due is None or not self._faults else now - due - self._faults[0].after
            if over >= 0 and (self._do(self._faults[0]) or over > _STARTS_WITHIN):
                self._faults.pop(0)
                due = time.monotonic()
            time.sleep(_POLL)
        self._run.ended = self._supervisor.exit_status(SERVER) == 0
        for _, ending in self._endings:
            ending()

    def disturb(self, fault: Fault) -> bool:
        """Do it; False where there was nobody to do it to."""
        match fault.kind:
            case Kind.KILL_SERVER:
                return self._supervisor.kill(SERVER)
            case Kind.KILL_CLIENT:
                return self._supervisor.kill(fault.client)
            case other:
                raise AssertionError(f"{other} is not for this scene")

    def lasting(self, seconds: float, ending: Callable[[], None]) -> None:
        """Have ``ending`` called after so long, or at the job's end."""
        self._endings.append((time.monotonic() + seconds, ending))

    def _going_on(self) -> bool:
        return self._supervisor.exit_status(SERVER) is None and not self._supervisor.troubles

    def _end_what_is_over(self, now: float) -> None:
        for item in [item for item in self._endings if item[0] <= now]:
            self._endings.remove(item)
            item[1]()

    def _do(self, fault: Fault) -> bool:
        """Do it; False where there is nobody to do it to yet: it may be starting again."""
        done = self.disturb(fault)
        self._run.faults[fault.kind] += done
        return done


class StageDirector(Director):
    """The director where all are before one broker."""

    def __init__(self, stage: Stage, supervisor: Supervisor, run: Run) -> None:
        """Direct ``run`` on ``stage``."""
        super().__init__(supervisor, run)
        self._stage = stage

    def direct(self, timeout: float) -> None:
        """As any director, and take hostile tasks from the clients at the end."""
        super().direct(timeout)
        for client in {f.client for f in self._run.schedule.faults if f.kind is Kind.HOSTILE}:
            forget_forged(self._stage.direct_url, client)

    def disturb(self, fault: Fault) -> bool:
        """Do it; False where there was nobody to do it to."""
        stage = self._stage
        match fault.kind:
            case Kind.KILL_BROKER:
                stage.kill_broker()
            case Kind.CUT:
                stage.cut()
            case Kind.OUTAGE:
                stage.refuse()
                self.lasting(fault.seconds, stage.accept)
            case Kind.CLOSE:
                stage.close_connections()
            case Kind.HALF_OPEN:
                stage.freeze(to_client=fault.seconds > 2.0, to_broker=fault.seconds < 4.0)
            case Kind.STALL:
                stage.freeze(to_client=True, to_broker=True)
                self.lasting(fault.seconds, stage.thaw)
            case Kind.DELAY:
                stage.delay(0.05 * fault.seconds)
                self.lasting(fault.seconds, lambda: stage.delay(0.0))
            case Kind.SLOW:
                stage.throttle(200_000.0)
                self.lasting(fault.seconds, lambda: stage.throttle(None))
            case Kind.ALARM:
                stage.raise_alarm()
                self.lasting(fault.seconds, stage.end_alarm)
            case Kind.DELETE_STREAM:
                stage.delete_queue(MODELS)
            case Kind.DELETE_QUEUE:
                stage.delete_queue(client_queue(fault.client))
            case Kind.DELETE_REPLIES:
                stage.delete_queue(replies_queue(JOB))
            case Kind.POLICY:
                stage.set_policy()
                self.lasting(fault.seconds, stage.end_policy)
            case Kind.HOSTILE if stage.blocked:
                return False
            case Kind.HOSTILE:
                send_hostile(stage.direct_url, JOB, fault.client, fault.seconds)
            case _:
                return super().disturb(fault)
        return True


def _finish(stage: Scene, supervisor: Supervisor, run: Run, names: list[str]) -> None:
    """Let everybody hear of the job's end, look at what is left, and send all home."""
    stage.calm()
    queues = [client_queue(name) for name in names]
    own = [replies_queue(JOB), presence_queue(JOB), lock_queue(JOB)]
    deadline = time.monotonic() + _DRAIN_SECONDS
    while run.ended:
        run.depths = stage.depths([*queues, *own, DEAD])
        waiting = [depth for queue, depth in run.depths.items() if queue != DEAD]
        drained = not any(waiting) and not run.spooled()
        if drained or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    supervisor.dismiss()
    if not run.ended:
        supervisor.dump_stacks()
    run.hits = supervisor.hits
    run.lives += Counter({name: supervisor.lives(name) for name in [SERVER, *names]})
    run.troubles += supervisor.troubles
