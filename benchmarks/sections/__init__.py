"""The sections of docs/measurements.md: one function per result file, from its rows to Markdown."""
