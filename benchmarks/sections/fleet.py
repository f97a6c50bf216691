"""What a real fleet costs beyond its engine."""

from __future__ import annotations

import statistics

from benchmarks.sections._tables import Rows, table, with_range


def fleet(rows: Rows) -> str:
    """What a real fleet costs beyond its engine."""
    of = {part: [row for row in rows if row["part"] == part] for part in ("rounds", "memory", "idle")}
    rounds = [
        (
            row["name"],
            with_range(row["round_s"], row["all_round_s"][1:]),
            with_range(row["floor_s"], row["all_floor_s"][1:]),
            f"{row['ratio']:.2f}x",
            row["rounds"],
        )
        for row in of["rounds"]
    ]
    memory = [
        (row["name"], *(f"{row[key]:.0f} MB" for key in ("run_mb", "server_mb", "job_mb")))
        for row in of["memory"]
        if row in (of["memory"][0], *of["memory"][2::6], of["memory"][-1])
    ]
    parts = [
        "## What a real fleet costs\n\nA cloud and three devices on loopback. A round of sheaf's is a train "
        "task of no epochs on all three at once: weights go down, into the network, onto the device's disk, "
        "come up, are checked and lie on the cloud's disk. The floor is NVIDIA FLARE's own call with as many "
        "bytes as tensors, sent back as they came, kept nowhere. Seconds are the median (least to most) "
        "without the first round.",
        table(("weights each way", "sheaf, s", "floor, s", "ratio", "rounds"), rounds),
        "Memory of the cloud after rounds of 100 MB (proportional set size): the run's process, which "
        "merges; FLARE's server; FLARE's job.",
        table(("after", "run", "server", "job"), memory),
        f"All three together: {_sums(of['memory'][2:20])} in rounds 3 to 20, {_sums(of['memory'][20:])} in "
        "rounds 21 to 40 (mean ± standard deviation: what is on its way when a round ends, and what the "
        "allocator keeps, differs by round).",
    ]
    parts += [
        f"A device that waits takes {row['idle_mb']:.0f} MB, all its processes together (the most of "
        f"{row['devices']})."
        for row in of["idle"]
    ]
    return "\n\n".join(parts)


def _sums(rows: Rows) -> str:
    """Megabytes of the cloud's processes together."""
    sums = [sum(row[key] for key in ("run_mb", "server_mb", "job_mb")) for row in rows]
    return f"{statistics.mean(sums):.0f} ± {statistics.stdev(sums):.0f} MB"
