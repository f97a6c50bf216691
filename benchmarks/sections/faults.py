"""How a run on a fleet reacts to failures."""

from __future__ import annotations

from benchmarks.sections._tables import Rows, commits, table

CASES = {
    "undisturbed": "No failure.",
    "absent_at_start": "edge-3 is absent when the run starts, and connects during the first training.",
    "killed": "edge-3 is killed during training and restarted three seconds later.",
    "job_killed": "The training process of edge-3 is killed; its waiting process is not.",
    "paused": "edge-3 is suspended for six seconds during training.",
    "stopped": "edge-3 is suspended permanently; its connection stays open.",
    "slow": "edge-3 computes at a twentieth of its speed; the deadline of a call is 15 s.",
    "out_of_disk": "From its first training on, edge-3 cannot write files larger than 100 bytes.",
    "run_killed": "The run's process on the cloud is killed during training, then resumed.",
    "server_killed": "The cloud's server and its children are killed during training, then restarted.",
    "relay_killed": "The job's process on the cloud is killed during training.",
    "no_kit": "A client without a certificate connects to the cloud's port.",
    "foreign_kit": "A device joins with a kit of another fleet, edited to point at this cloud.",
    "forged_kit": "The same, with this fleet's authority in the kit, so that the device trusts the cloud.",
    "revoked_kit": "edge-3 is removed during training (four times the steps), then rejoins with its old kit.",
}
"""Case -> description; a case that is not listed is described by its row."""


def faults(rows: Rows) -> str:
    """Return the section."""
    lines = [
        (
            row["case"].replace("_", " "),
            CASES.get(row["case"], row["what"]),
            row["ended"],
            "-" if not row["weights"] else "yes" if row["equal"] else "no",
            f"{row['lost_s']:.0f}" if row["weights"] else "-",
            row["left_out"] or "-",
        )
        for row in rows
    ]
    at = commits((row["case"].replace("_", " "), row["commit"]) for row in rows)
    heading = ("case", "failure", "outcome", "same weights", "seconds lost", "left out")
    return (
        "## Failures\n\nA rehearsed fleet of three devices, quorum 0.5. *same weights*: whether the final "
        "weights equal those of the undisturbed run bit for bit. They must differ if a device was left out "
        "of training. *seconds lost*: compared with the undisturbed run, including restarts. *left out*: "
        "device, reason and calls. Commits at which the cases were last run: "
        f"{at}.\n\n" + table(heading, lines)
    )
