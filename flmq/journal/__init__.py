"""The journal of a run: its records, models and replies, complete after any crash."""

from __future__ import annotations

from flmq.journal.errors import (
    Fenced,
    JournalDamaged,
    JournalGone,
    JournalNotWritable,
    NewerJournal,
    NotKept,
    UnsavableState,
)
from flmq.journal.journal import Journal
from flmq.journal.mapped import MappedParameters
from flmq.journal.reader import JournalReader
from flmq.journal.reading import open_to_read
from flmq.journal.records import (
    CarriedReply,
    Checkpoint,
    CheckpointInfo,
    ClosedPhase,
    Contribution,
    JobIdentity,
    KeepPolicy,
    LateEntry,
    LateReply,
    Part,
    PhaseKey,
    PhaseRecord,
    PhaseRow,
    Plan,
    PlannedAsk,
    RecordedSum,
    RoundRow,
    RunInfo,
    RunState,
)
from flmq.journal.runs import list_runs
from flmq.journal.state import StateValue, decode_state, encode_state
from flmq.journal.unsaved import AttributeWatch

__all__ = [
    "AttributeWatch",
    "CarriedReply",
    "Checkpoint",
    "CheckpointInfo",
    "ClosedPhase",
    "Contribution",
    "Fenced",
    "JobIdentity",
    "Journal",
    "JournalDamaged",
    "JournalGone",
    "JournalNotWritable",
    "JournalReader",
    "KeepPolicy",
    "LateEntry",
    "LateReply",
    "MappedParameters",
    "NewerJournal",
    "NotKept",
    "Part",
    "PhaseKey",
    "PhaseRecord",
    "PhaseRow",
    "Plan",
    "PlannedAsk",
    "RecordedSum",
    "RoundRow",
    "RunInfo",
    "RunState",
    "StateValue",
    "UnsavableState",
    "decode_state",
    "encode_state",
    "list_runs",
    "open_to_read",
]
