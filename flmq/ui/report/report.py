"""Write a run's report: the page, its modules, and what the API would answer, in one file."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from flmq import __version__
from flmq.common.files import replacing
from flmq.ui.reading.runs import NoSuchPage, Runs
from flmq.ui.report.bundle import MAIN, integrity, module_map, styles

__all__ = ["Report", "write_report"]

_PAGE = Path(__file__).resolve().parent.parent
_MOST_ROUNDS = 6_000_000
"""Characters of rounds' parts, compressed: more are left out, the earliest rounds first."""
_MOST_CLIENTS = 3_000_000
"""Characters of clients' views, compressed."""
_LINES = 1000
_SMALL = 2000
"""Characters from which on an answer is compressed."""


@dataclass(slots=True)
class Report:
    """What a report holds."""

    answers: dict[str, Any] = field(default_factory=dict)
    """What the API answers, by its path; long ones compressed, as text."""
    rounds_left_out: int = 0
    """Rounds whose clients' parts are not in it; what was measured in them is."""
    clients_left_out: int = 0
    """Clients whose own view is not in it."""

    @property
    def left_out(self) -> str:
        """What is not in it, as a sentence; empty: nothing is left out."""
        parts = [
            f"{count} {what}"
            for count, what in (
                (self.rounds_left_out, "of the earliest rounds have no Gantt"),
                (self.clients_left_out, "clients have no view"),
            )
            if count
        ]
        return (
            f"To keep this file small, {' and '.join(parts)}: `flmq ui` has them." if parts else ""
        )


def write_report(
    runs_dir: Path,
    job: str,
    path: Path,
    *,
    most_rounds: int = _MOST_ROUNDS,
    most_clients: int = _MOST_CLIENTS,
) -> Report:
    """Write the report of the run ``job`` to ``path``, and return what it holds.

    Raises:
        NoSuchPage: there is no such run.
        StoredDataError: the run's files are damaged.
        OSError: the file cannot be written.
    """
    runs = Runs(runs_dir)
    try:
        report = _collected(runs, job, most_rounds, most_clients)
    finally:
        runs.close()
    report.answers["start"] = f"/runs/{_quoted(job)}"
    with replacing(path, tidy=True) as file:
        file.write(_html(report).encode(errors="backslashreplace"))
    return report


def _collected(runs: Runs, job: str, most_rounds: int, most_clients: int) -> Report:
    report, api = Report(), f"/api/runs/{_quoted(job)}"
    head, rounds, clients = runs.head(job), runs.rounds(job, 0), runs.clients(job)
    for path, answer in (
        ("/api/runs", {"runs": [head]}),
        (api, head),
        (f"{api}/rounds", rounds),
        (f"{api}/marks", runs.marks(job)),
        (f"{api}/clients", clients),
        (f"{api}/log", {**runs.log(job, None, "", _LINES), "earlier": False}),
    ):
        report.answers[path] = _packed(answer)
    numbers = [each["round"] for each in rounds["rounds"]]
    numbers += [rounds["open"]["round"]] if rounds["open"] else []
    report.rounds_left_out = len(numbers) - _fill(
        report,
        ((f"{api}/rounds/{number}", runs.round(job, number)) for number in reversed(numbers)),
        most_rounds,
    )
    names = [each["client"] for each in clients["clients"]]
    report.clients_left_out = len(names) - _fill(report, _views(runs, job, names), most_clients)
    return report


def _views(runs: Runs, job: str, names: list[str]) -> Iterator[tuple[str, Any]]:
    for name in names:
        try:
            yield f"/api/runs/{_quoted(job)}/clients/{_quoted(name)}", runs.client(job, name)
        except NoSuchPage:
            continue


def _fill(report: Report, answers: Iterator[tuple[str, Any]], most: int) -> int:
    """Add answers up to ``most`` characters; return how many."""
    count = taken = 0
    for path, answer in answers:
        packed = _packed(answer)
        taken += len(packed) if isinstance(packed, str) else _SMALL
        if taken > most:
            break
        report.answers[path] = packed
        count += 1
    return count


def _packed(answer: Any) -> Any:
    """Return an answer as it is, or as the base64 of its gzip'ed JSON, if it is long."""
    text = json.dumps(answer, separators=(",", ":"), allow_nan=False)
    if len(text) < _SMALL:
        return answer
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()


def _html(report: Report) -> str:
    modules, boot = module_map(_PAGE / "static"), f'import "{MAIN}";'
    # A "<" could end the script, whatever a peer is called.
    data = json.dumps(report.answers, allow_nan=False).replace("<", "\\u003c")
    policy = (
        f"default-src 'none'; script-src {integrity(modules)} {integrity(boot)} data:; "
        "style-src data: 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    )
    frame = Environment(loader=FileSystemLoader(_PAGE / "templates"), autoescape=True)
    return frame.get_template("page.html").render(
        version=__version__,
        report={
            "policy": policy,
            "modules": Markup(modules),  # noqa: S704  our own modules, in base64
            "boot": Markup(boot),  # noqa: S704  as is
            "data": Markup(data),  # noqa: S704  JSON without a "<"
            "styles": styles(_PAGE / "static"),
            "left_out": report.left_out,
        },
    )


def _quoted(name: str) -> str:
    """Return a name as JavaScript's encodeURIComponent does."""
    return quote(name, safe="!'()*~-_.", errors="replace")
