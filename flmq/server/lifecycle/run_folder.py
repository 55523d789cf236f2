"""A job's folder: open its journal, refuse one that does not match, or start over."""

from __future__ import annotations

import hashlib
import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from flmq.common.errors import JobInUse, UsageError
from flmq.common.logger import logger
from flmq.journal import JobIdentity, Journal
from flmq.journal.active_marker import is_in_charge
from flmq.journal.files import writing
from flmq.server.job_identity import Job
from flmq.server.options import ResumePolicy, RunOptions
from flmq.server.server import Server
from flmq.server.server_config import ServerConfig
from flmq.server.strategy.late import LateReplies
from flmq.server.strategy.partial.subset import NamedSubset
from flmq.server.strategy.strategy import Strategy
from flmq.server.strategy.wrapping import layers

__all__ = ["JobChanged", "OpenRun", "open_run", "set_aside"]


class JobChanged(UsageError):
    """Strategy or configuration differ from those with which the job was begun."""

    def __init__(self, job: str, differences: dict[str, tuple[str, str]]) -> None:
        """Name the differences, as (then, now)."""
        self.job = job
        self.differences = differences
        listed = "; ".join(
            f"{name}: was {_without(now, then)}, is {_without(then, now)}"
            for name, (then, now) in sorted(differences.items())
        )
        super().__init__(
            f"job {job!r} was begun differently ({listed}), so going on would not give the bits of "
            "one undisturbed run. Go on all the same with --resume, begin anew with --fresh, or "
            "use another job name"
        )


def _without(other: str, listed: str) -> str:
    """Return the options in ``listed`` that are not in ``other``; if there are none, all of it."""
    others = other.split(", ")
    return ", ".join(each for each in listed.split(", ") if each not in others) or listed


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A job of which this process has taken charge."""

    job: Job
    seed: int
    journal: Journal | None
    new: bool = False
    """Whether it begins now, in a folder without a journal of it."""
    resumed: bool = False
    """Whether an earlier server began it."""


def set_aside(folder: Path) -> Path | None:
    """Move a run's folder aside; return its new path, or None if there was none.

    Raises:
        JobInUse: a live server on this machine is in charge of it.
        JournalNotWritable: it cannot be moved.
    """
    if not folder.exists():
        return None
    if is_in_charge(folder):
        raise JobInUse(folder.name)
    target = folder.with_name(f"{folder.name}.{time.strftime('%Y%m%d-%H%M%S')}")
    number = 0
    while target.exists():
        number += 1
        target = folder.with_name(f"{target.name}-{number}")
    with writing(folder):
        folder.rename(target)
    return target


def open_run(
    name: str,
    options: RunOptions,
    server: Server,
    config: ServerConfig,
    clock: Callable[[], int] = time.time_ns,
) -> OpenRun:
    """Take charge of job ``name``, with the identity from its journal if it has one.

    Call it while holding the job's lock. ``clock`` gives nanoseconds since 1970 UTC.

    Raises:
        JobChanged: the journal was begun with another strategy or configuration.
        StoredDataError: the journal is damaged, or of a newer flmq.
    """
    seed = _seed_of(name) if options.seed is None else options.seed
    if options.runs_dir is None:
        return OpenRun(Job.create(name, clock), seed, None)
    folder = options.runs_dir / name
    if options.resume is ResumePolicy.FRESH:
        aside = set_aside(folder)
        options = replace(options, anew=True)
        if aside is not None:
            logger.warning("job %s begins anew; its earlier run is in %s", name, aside)
    journal = Journal.open(folder, clock=clock)
    fingerprint = _fingerprint(server, config, seed)
    protection = options.coordinator.protection
    if protection is not None:
        fingerprint["end to end"] = protection.fingerprint
    identity = journal.identity
    resumed, new = identity is not None, identity is None and not options.anew
    if identity is None:
        job = Job.create(name, clock)
        identity = JobIdentity(name, job.run_id, job.secret, seed)
        journal.begin(identity, fingerprint, {})
    elif options.resume is not ResumePolicy.ANYWAY:
        _compare(name, journal.fingerprint(), fingerprint)
    epoch = journal.take_charge()
    if journal.finished is None:  # else it keeps what it has, and says so
        journal.keep(options.keep)
    job = Job(name, identity.run_id, identity.secret, epoch)
    return OpenRun(job, identity.seed, journal, new, resumed)


def _compare(job: str, then: dict[str, str], now: dict[str, str]) -> None:
    differences = {
        name: (then.get(name, "nothing"), now.get(name, "nothing"))
        for name in then.keys() | now.keys()
        if then.get(name) != now.get(name)
    }
    if differences:
        raise JobChanged(job, differences)


def _fingerprint(server: Server, config: ServerConfig, seed: int) -> dict[str, str]:
    """Return what the run's bits depend on besides the clients, without the number of rounds."""
    strategy, *wrapped = layers(server.strategy)
    late, inside = strategy.late_replies, {}
    for depth, each in enumerate(wrapped):
        inside.update(_described(each, f"wrapped strategy{' within' * depth}"))
    return {
        **inside,
        **({} if late is LateReplies.DROP else {"late replies": late.value}),
        **_described(strategy, "strategy"),
        "seed": str(seed),
        "min_results": str(config.min_results),
        "target_results": str(config.target_results),
    }


def _described(strategy: Strategy, called: str) -> dict[str, str]:
    """Return what a strategy's part in the run's bits depends on."""
    kind = type(strategy)
    options = {
        name: repr(value)
        for name, value in sorted(vars(strategy).items())
        if isinstance(value, bool | int | float | str | None) and name != "criterion"
    }
    criterion, check = getattr(strategy, "criterion", None), strategy.reply_check
    return {
        **({} if criterion is None else {"criterion": _named(criterion)}),
        **({f"tensors of the {called}": str(check)} if isinstance(check, NamedSubset) else {}),
        called: f"{kind.__module__}.{kind.__qualname__}",
        f"code of the {called}": _code_of(kind),
        f"options of the {called}": ", ".join(f"{name}={value}" for name, value in options.items()),
    }


def _named(criterion: object) -> str:
    """Return the same text for the same criterion in every process."""
    text = repr(criterion)
    return type(criterion).__qualname__ if " at 0x" in text else text


def _code_of(kind: type) -> str:
    """Return a digest of the class's source and of its base classes, except flmq's own."""
    digest = hashlib.sha256()
    for each in kind.__mro__:
        if each.__module__.split(".")[0] in ("flmq", "builtins", "abc", "typing"):
            continue
        try:
            digest.update(inspect.getsource(each).encode())
        except (OSError, TypeError):
            digest.update(each.__qualname__.encode())
    return digest.hexdigest()[:16]


def _seed_of(job: str) -> int:
    return int.from_bytes(hashlib.blake2b(job.encode(), digest_size=8).digest(), "big") >> 1
