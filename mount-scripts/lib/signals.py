"""Ctrl-C, SIGTERM and SIGHUP as an exception: what they end is cleaned up where it was begun.

A handler that cleaned up by itself would wait for processes in the midst of a wait for them, and that is for ever.
"""
import signal

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """Somebody wants this program to end; `code` is its exit code."""

    def __init__(self, number):
        super().__init__(number)
        self.code = 128 + number


def raise_interrupted():
    """From now on the first of these signals raises Interrupted, and others are ignored."""
    def handle(number, _):
        for other in ENDING:
            signal.signal(other, signal.SIG_IGN)
        raise Interrupted(number)
    for number in ENDING:
        signal.signal(number, handle)
