"""The page on protection from end to end, followed as written: keys, a server, clients."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.docs.pages import README, ROOT, blocks, program
from tests.processes import environment, run_together

PAGE = ROOT / "docs" / "e2e.md"


def test_keys_server_and_clients_as_on_the_page(broker_url: str, tmp_path: Path) -> None:
    alices, servers, serving, client, many = blocks(PAGE, "sh")
    machines = {name: tmp_path / name for name in ("server", "alice", "wards")}
    for folder in machines.values():
        folder.mkdir()
        # All five take part: who comes when a short job is over would wait for the next.
        text = program(README, "app.py").replace("FedAvg(", "FedAvg(min_available_clients=5, ")
        (folder / "app.py").write_text(text, encoding="utf-8")
    env = environment(broker_url)

    # Each makes its keys, and gives the public ones to the other side.
    new, started = many.splitlines()
    made = [(alices, "alice"), (servers, "server"), (new, "wards")]
    printed = [run_together([["sh", "-ec", text]], machines[name], env)[0] for text, name in made]
    alice, told = printed[0].splitlines()[0], printed[0].splitlines()[-1]
    assert alice == told, "the fingerprint of a new key is the one that is compared later"
    trusted = machines["server"] / "trusted"
    trusted.mkdir()
    for name in ("alice", "wards"):
        for file in (machines[name] / "keys").glob("*.pub"):
            shutil.copy(file, trusted)
        shutil.copy(machines["server"] / "keys" / "hospital.pub", machines[name])

    def typed(text: str, name: str) -> list[str]:
        return ["sh", "-ec", f"cd {machines[name]} && {text}"]

    outputs = run_together(
        [typed(serving, "server"), typed(client, "alice"), typed(started, "wards")], tmp_path, env
    )
    assert "signed by hospital" in outputs[0]
    assert "trusts 5 clients" in outputs[0]
    assert "job line ended: all rounds done" in outputs[1]
    run = json.loads((machines["server"] / "runs" / "line" / "history.json").read_text("utf-8"))
    assert [closed["fit"]["accepted"] for closed in run["rounds"]] == [5] * 5
    assert run["final_loss"] < 0.1
    keys = list(tmp_path.glob("*/keys/*.key"))
    assert len(keys) == 6
    assert all(path.stat().st_mode & 0o077 == 0 for path in keys)
