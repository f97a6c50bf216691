"""What is compared with what; each module is run as ``python -m benchmarks.NAME``."""
