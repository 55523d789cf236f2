"""A reply in the record as its client encoded it: no more of it than what was read."""

from __future__ import annotations

from pathlib import Path

from flmq.common import Code, FitRes, Parameters, Status
from flmq.common.phase import Phase
from flmq.journal import JobIdentity, Journal, PhaseKey, Plan, PlannedAsk
from flmq.round import Outcome, Policy
from flmq.round.job_actions import Enter, Entry, Verdict
from flmq.server.job_identity import Job
from flmq.server.replies.reply_edges import ReplyEntry
from flmq.server.resumption.reply_journal import ReplyJournal
from flmq.wire import Failure, FailureKind, Reply, Res, decode, encode
from flmq.wire.proto.flmq.v1 import envelopes_pb2 as pb

KEY = PhaseKey(1, Phase.FIT)
FIELD_999 = b"\xba\x3e"
"""Key of a text that no version has yet."""


def recorded(folder: Path, res: Res, came: bytes) -> bytes:
    journal = Journal.open(folder)
    journal.begin(JobIdentity("job", "run", b"secret", 7), {}, {})
    journal.take_charge()
    planned = (PlannedAsk("a", "t", b"task"),)
    journal.phases.open(KEY, Plan(planned, None, Policy(min_results=0), {}))
    reply = decode(came)
    assert isinstance(reply, Reply)
    action = Enter(1, KEY, "a", Entry.REPLY, Verdict(Outcome.ACCEPTED))
    replies = ReplyJournal(journal, Job("job", "run", b"secret", 1))
    replies.enter([ReplyEntry(action, reply, len(came), came)])
    (kept,) = journal.phases.contributions(KEY)
    (back,) = replies.replies(KEY)
    assert back.reply == reply
    journal.close()
    return kept.reply


def test_fields_of_a_later_version_are_not_in_the_record_that_it_may_read(tmp_path: Path) -> None:
    """It would read more than was counted, or refuse what its own folder says."""
    res = FitRes(Status(Code.OK, ""), Parameters([b"1234"], "raw"), 3, {"loss": 0.5})
    plain = encode(Reply("t", "job", 1, Phase.FIT, "a", 1, b"n", 0.0, res))
    envelope = pb.Envelope.FromString(plain)
    odd = FIELD_999 + b"\x05later"
    envelope.reply.MergeFromString(odd)
    came = envelope.SerializeToString() + odd
    assert came.count(b"later") == 2
    assert recorded(tmp_path, res, came) == plain


def test_nor_is_a_text_that_was_cut_when_it_was_read(tmp_path: Path) -> None:
    res = Failure(FailureKind.EXCEPTION, "E", "short", "")
    envelope = pb.Envelope.FromString(
        encode(Reply("t", "job", 1, Phase.FIT, "a", 1, b"n", 0.0, res))
    )
    envelope.reply.failure.message = "m" * 2**20
    assert len(recorded(tmp_path, res, envelope.SerializeToString())) < 100_000
