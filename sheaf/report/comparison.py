"""Stub."""
def comparison(runs, unfinished):
    raise NotImplementedError
