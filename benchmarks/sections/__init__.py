"""The sections of docs/measurements.md, one for each result file: its rows -> Markdown."""
