"""Keeping intermediate values for comparison."""


def note(taps, name, value):
    """Keep a value under a name, if somebody asked for it, and hand it on.

    Args:
        taps: dict, or None.
    """
    if taps is not None:
        taps[name] = value
    return value
