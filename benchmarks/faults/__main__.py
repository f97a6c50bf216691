"""The command ``python -m benchmarks.faults``."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.faults.cases import (
    absent_at_start,
    job_killed,
    killed,
    out_of_disk,
    paused,
    relay_killed,
    run_killed,
    server_killed,
    slow,
    stopped,
    undisturbed,
)
from benchmarks.faults.kits import foreign_kit, forged_kit, no_kit, revoked_kit
from benchmarks.faults.stage import SETTINGS, Stage
from benchmarks.results import FOLDER, publish
from sheaf.experiments.provenance import provenance

CASES: tuple[Callable[[Stage], dict[str, Any]], ...] = (
    undisturbed,
    absent_at_start,
    killed,
    job_killed,
    paused,
    stopped,
    slow,
    out_of_disk,
    run_killed,
    server_killed,
    relay_killed,
    no_kit,
    foreign_kit,
    forged_kit,
    revoked_kit,  # the last one: edge-3 is out for good
)


def main() -> None:
    """Run the named cases, or all, and publish ``faults.json``; earlier cases stay."""
    wanted = sys.argv[1:] or [case.__name__ for case in CASES]
    path = FOLDER / "faults.json"
    before = json.loads(path.read_text()) if path.exists() else {"rows": []}
    rows = {row["case"]: {"commit": before["provenance"]["commit"], **row} for row in before["rows"]}
    commit = provenance({}, 0, {}, torch.device("cpu"))["commit"]
    with tempfile.TemporaryDirectory(prefix="sheaf-faults-") as folder:
        stage = Stage(Path(folder))
        try:
            for case in CASES:
                if case.__name__ not in wanted:
                    continue
                stage.mend()
                description = " ".join((case.__doc__ or "").split())
                row = {"case": case.__name__, "what": description, **case(stage), "commit": commit}
                rows[case.__name__] = row
                print(row, flush=True)
                publish_all(rows)
        finally:
            stage.close()


def publish_all(rows: dict[str, dict[str, Any]]) -> None:
    """Publish all cases, each compared with the undisturbed one."""
    reference = rows.get("undisturbed", {})
    for row in rows.values():
        row["equal"] = row["weights"] != "" and row["weights"] == reference.get("weights")
        row["lost_s"] = row["seconds"] - reference.get("seconds", 0.0) if row["weights"] else 0.0
    publish(
        "faults",
        [rows[case.__name__] for case in CASES if case.__name__ in rows],
        {"settings": list(SETTINGS)},
        0,
        {},
    )


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
