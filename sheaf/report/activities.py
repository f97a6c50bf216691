"""Descriptions of the kinds of calls, for a terminal and for the page of a fleet."""

from __future__ import annotations

ACTIVITY = {
    "train": "training",
    "adopt": "sending the model to",
    "evaluate": "evaluating",
    "summarize": "computing statistics on",
    "share": "collecting samples from",
    "lend": "sending samples to",
    "restat": "estimating statistics in",
    "refit": "refitting the classifier in",
    "collect": "collecting the models of",
    "remember": "saving the models of",
    "choose": "choosing a model in",
}
"""Kind of call -> its description, which precedes the sites."""
