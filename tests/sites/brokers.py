"""Three real brokers on loopback, and their federation.toml: a hub, a region, a site below it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from click.testing import Result
from typer.testing import CliRunner

from flmq.broker.node import PrivateNode
from flmq.broker.polling import poll_until
from flmq.cli.main import app

__all__ = ["PARENTS", "Brokers"]

PARENTS = {"main": None, "eu": "main", "eu-west": "eu"}


@dataclass(frozen=True, slots=True)
class Brokers:
    nodes: dict[str, PrivateNode]
    file: Path
    environ: dict[str, str]

    def site(self, *arguments: str, **environ: str) -> Result:
        """Run ``flmq site``."""
        typed = ["site", *arguments, "--file", str(self.file)]
        return CliRunner().invoke(app, typed, env={**self.environ, **environ})

    def checked(self, *wanted: str) -> Result:
        """Run ``flmq site check`` until it says all that is ``wanted``: links take seconds."""
        results: list[Result] = []

        def says() -> bool:
            results.append(self.site("check"))
            return all(line in results[-1].output for line in wanted)

        assert poll_until(says, 60.0, every=0.3), results[-1].output
        return results[-1]

    def run(self) -> Result:
        """Apply the file, and wait until all links run."""
        applied = self.site("apply", "--yes")
        assert applied.exit_code == 0, applied.output
        self.until_all_run()
        return applied

    def until_all_run(self) -> None:
        assert poll_until(lambda: self.site("check").exit_code == 0, 60.0, every=0.3)

    def url(self, name: str) -> str:
        return self.nodes[name].url
