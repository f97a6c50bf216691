"""Memory and disk of a real fleet over the rounds of a run."""

from __future__ import annotations

from benchmarks.sections._tables import Rows, table

COLUMNS = ("run_mb", "server_mb", "device_mb", "run_disk_mb", "fleet_disk_mb", "device_disk_mb")


def fleet_rounds(rows: Rows) -> str:
    """Return the section."""
    last = len(rows)
    shown = [row for row in rows if row["round"] in (1, 2, 5, last) or row["round"] % 10 == 0]
    lines = [(row["round"], *(f"{row[key]:.0f} MB" for key in COLUMNS)) for row in shown]
    heading = ("round", "run", "server", "device", "run's folder", "fleet's folder", "device's folder")
    text = (
        "### Memory and disk over the rounds of a run\n\nFedAvg on three devices, with weights of "
        "10 MB. The first three columns are memory (proportional set size of all processes of the run, of "
        "the cloud's server with its job, and of the largest device), the others disk."
    )
    return "\n\n".join([text, table(heading, lines)])
