"""Small statistics that more than one script needs. (Medians come from the module `statistics`.)"""


def grouped(number):
    """A whole number with a comma after each three digits."""
    return f"{number:,}"


def at_share(ordered, share):
    """The value below which that share of the values lies (0.99: the 99th percentile); they must be in order, and not empty."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
