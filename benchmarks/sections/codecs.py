"""Bytes, accuracy and time of codecs."""

from __future__ import annotations

from statistics import mean, stdev

from benchmarks.sections._tables import Rows, table

HEADING = (
    *("data", "codec", "MB sent", "fewer bytes", "cloud", "points", "seeds"),
    *("encode ms/MB", "decode ms/MB"),
)


def codecs(rows: Rows) -> str:
    """Return the section."""
    lines = []
    for data in dict.fromkeys(row["data"] for row in rows):
        of_data = [row for row in rows if row["data"] == data]
        exact = {row["seed"]: row for row in of_data if row["codec"] == "float32"}
        for codec in dict.fromkeys(row["codec"] for row in of_data):
            of = [row for row in of_data if row["codec"] == codec]
            factors = [exact[row["seed"]]["bytes"] / row["bytes"] for row in of]
            points = [100 * (row["accuracy"] - exact[row["seed"]]["accuracy"]) for row in of]
            lines.append(
                (
                    data,
                    codec,
                    f"{mean(row['bytes'] for row in of) / 1e6:.1f}",
                    f"{mean(factors):.2f}x",
                    f"{mean(row['accuracy'] for row in of):.4f}",
                    f"{mean(points):+.2f}" + (f" ± {stdev(points):.2f}" if len(points) > 1 else ""),
                    len(of),
                    f"{of[0]['encode_ms_per_mb']:.2f}",
                    f"{of[0]['decode_ms_per_mb']:.2f}",
                )
            )
    return (
        "## Codecs\n\n"
        "FedAvg with twenty edges (Dirichlet, alpha 1), five of them in each round; the codec encodes both "
        "directions. *fewer bytes* and *points* of accuracy are against float32 with the same seed, mean and "
        "standard deviation. Most edges of a round hold an older model or none, which `topk` replaces by a "
        "whole float32 model. Times are processor times of the whole model on one thread, for each "
        f"megabyte of float32.\n\n{table(HEADING, lines)}"
    )
