"""The overhead of a real fleet over its transport."""

from __future__ import annotations

import statistics

from benchmarks.sections._tables import Rows, table, with_range


def fleet(rows: Rows) -> str:
    """Return the section."""
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
        "## The overhead of a real fleet\n\nA cloud and three devices on loopback. One round is a train task "
        "of zero epochs on all three devices at once: the weights are sent to the device, loaded into the "
        "network, written to its disk, sent back, checked, and written to the cloud's disk. The baseline is "
        "a call of NVIDIA FLARE that echoes the same number of bytes and stores nothing. Seconds are median "
        "(minimum to maximum) without the first round.",
        table(("weights each way", "sheaf, s", "baseline, s", "ratio", "rounds"), rounds),
        "Memory of the cloud (proportional set size) after rounds of 100 MB, for the run's process, which "
        "merges, FLARE's server and FLARE's job:",
        table(("after", "run", "server", "job"), memory),
        f"Sum of the three: {_sums(of['memory'][2:20])} in rounds 3 to 20, {_sums(of['memory'][20:])} in "
        "rounds 21 to 40 (mean ± standard deviation). It varies with the messages in flight at the end of a "
        "round and with the allocator's free memory.",
    ]
    parts += [
        f"An idle device needs {row['idle_mb']:.0f} MB for all its processes (maximum over {row['devices']} "
        "devices)."
        for row in of["idle"]
    ]
    return "\n\n".join(parts)


def _sums(rows: Rows) -> str:
    """Return mean and standard deviation of the memory of the cloud's processes, in MB."""
    sums = [sum(row[key] for key in ("run_mb", "server_mb", "job_mb")) for row in rows]
    return f"{statistics.mean(sums):.0f} ± {statistics.stdev(sums):.0f} MB"
