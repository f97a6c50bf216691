"""Benchmarks; run each module as ``python -m benchmarks.NAME``."""

import sheaf  # noqa: F401  # before torch: it limits the spinning of OpenMP's threads, as for its users
