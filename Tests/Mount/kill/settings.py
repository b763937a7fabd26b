"""What the command line of run.py says, and what its parts count together."""
import sys

treering, engine, store, mount_point, work = sys.argv[1:6]
first, count = int(sys.argv[6]), int(sys.argv[7])
full = sys.argv[8:] == ["full"]


class Wrong(Exception):
    """Something is not as it must be after a kill; the message says what."""


class Tally:
    """What all rounds add up to."""

    # Kills, by what the process did when it died.
    when = {"serving": 0, "unmounting": 0, "mounting": 0}
    acknowledged = 0
    refused = 0
    # The share of the store in use at each kill, in percent.
    shares = []

    @classmethod
    def kills(cls):
        """All kills so far."""
        return sum(cls.when.values())
