"""A run's final model, as files that other tools read, and its digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from flmq.common.logger import logger
from flmq.common.model_files import ModelNotWritable, save_parameters
from flmq.common.phase import Phase
from flmq.common.typing import Parameters
from flmq.journal import Journal
from flmq.journal.records import RoundRow
from flmq.observe.events import ClientOutcome, RoundClosed, RunEnded, RunEvent, RunStarted
from flmq.round import Outcome
from flmq.wire import refer

__all__ = ["MODEL", "ModelSaver", "made_by", "model_digest", "origin_of"]

MODEL = "model"
"""Name of the files of a final model, without their endings."""


def model_digest(parameters: Parameters) -> str:
    """Return the SHA-256 (hex) of the tensors' bytes in order: equal for bit-identical models."""
    digest = hashlib.sha256()
    for tensor in parameters.tensors:
        digest.update(len(tensor).to_bytes(8, "big"))
        digest.update(tensor)
    return digest.hexdigest()


def origin_of(
    job: str, parameters: Parameters, server_round: int, closing_set: Sequence[str]
) -> dict[str, str]:
    """Return where a model comes from, as metadata for its file.

    ``closing_set`` are the clients whose replies made it: a late reply as ``client@round``.
    """
    return {
        "flmq.job": job,
        "flmq.round": str(server_round),
        "flmq.digest": refer(parameters).digest,
        "flmq.closing_set": json.dumps(list(closing_set)),
    }


def made_by(rows: Sequence[RoundRow], server_round: int) -> tuple[int, list[str]]:
    """Return the round that made the model of ``server_round``, and that round's closing set."""
    models = {row.server_round: row.summary.get("model") for row in rows}
    made = server_round
    while made > 0 and models.get(made) is not None and models.get(made - 1) == models[made]:
        made -= 1
    clients: list[str] = []
    for row in rows:
        for phase in row.phases:
            if phase.phase is not Phase.FIT:
                continue
            if row.server_round == made:
                clients += [
                    each.client_id for each in phase.outcomes if each.outcome is Outcome.ACCEPTED
                ]
            clients += [
                f"{late.client_id}@{row.server_round}" for late in phase.late if late.into == made
            ]
    return made, sorted(set(clients))


class ModelSaver:
    """An observer that writes ``model.npz`` and ``model.safetensors`` at the end of a run.

    The latter says in its metadata which job, round and closing set made it. A model that
    safetensors has no dtypes for is only in the former, and one line of the log says so.
    """

    def __init__(self, folder: Path) -> None:
        """Write below ``folder``."""
        self._folder = folder
        self._journal = ""
        self._accepted: dict[int, list[str]] = {}
        self._made = 0

    def __call__(self, event: RunEvent) -> None:
        """Note who made the model; write it if ``event`` is the run's end and there is one."""
        match event:
            case RunStarted():
                self._journal = event.folder
            case ClientOutcome(phase=Phase.FIT, outcome=Outcome.ACCEPTED):
                self._accepted.setdefault(event.server_round, []).append(event.client_id)
            case RoundClosed():
                self._made = event.server_round if event.changed else self._made
                self._accepted = {self._made: self._accepted.get(self._made, [])}
            case RunEnded(parameters=Parameters()):
                self._save(event)

    def _save(self, ended: RunEnded) -> None:
        parameters = ended.parameters
        assert parameters is not None
        save_parameters(parameters, self._folder / f"{MODEL}.npz")
        server_round, clients = self._origin(ended.rounds)
        said = origin_of(ended.job, parameters, server_round, clients)
        try:
            save_parameters(parameters, self._folder / f"{MODEL}.safetensors", said)
        except ModelNotWritable as error:
            logger.warning("%s", error)

    def _origin(self, server_round: int) -> tuple[int, list[str]]:
        """Return the round and the closing set that made the final model."""
        if not self._journal:
            return self._made, sorted(self._accepted.get(self._made, []))
        journal = Journal.open(Path(self._journal), create=False)
        try:
            return made_by(journal.rounds(), server_round)
        finally:
            journal.close()
