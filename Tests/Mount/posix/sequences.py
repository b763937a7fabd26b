"""Sequences of random operations on both trees: one run of them, and the search for the shortest that still differs."""
import collections
import os
import time

import actors
import compare
import operations
import suite


class Run:
    """One sequence of operations on both trees: those of a seed, but for what is left out."""

    def __init__(self, options, seed, skip=frozenset(), until=None, tag=""):
        self.options, self.seed, self.skip = options, seed, skip
        self.until = until if until is not None else options.until or options.operations
        self.roots = [os.path.join(place, f"seed-{seed}{tag}") for place in (options.oracle, options.mount)]
        self.tally, self.explained = collections.Counter(), collections.Counter()
        self.made = 0

    def sequence(self):
        """The operations, each with its number."""
        generator = operations.Generator(self.seed)
        for index in range(self.until):
            operation = generator.next()
            if index not in self.skip and operation[1] not in self.options.without:
                yield index, operation

    def go(self):
        """The difference, or None."""
        started = time.time_ns() - 1_000_000_000
        for root in self.roots:
            suite.remove(root) if os.path.isdir(root) else None
            # One deeper, for what is made through a symlink to "../a".
            for place in (root, os.path.join(root, "top")):
                os.mkdir(place)
                os.chmod(place, 0o777)
        tops = [os.path.join(root, "top") for root in self.roots]
        crew = [actors.Actor(number, tops, self.options) for number in range(len(operations.ACTORS))]
        try:
            return self.drive(crew, started)
        finally:
            for actor in crew:
                actor.end()
            if not self.options.keep:
                for root in self.roots:
                    suite.remove(root)

    def drive(self, crew, started):
        """Has the crew make the sequence, one after the other, and compares the trees from time to time; the difference, or None."""
        batch, due = [], self.options.interval
        for index, operation in [*self.sequence(), (None, (None,))]:
            if batch and (operation[0] != batch[0][1][0] or len(batch) >= 50):
                made, difference, tally, explained = crew[batch[0][1][0]].run(batch)
                self.made += made
                self.tally.update(tally)
                self.explained.update(explained)
                if difference:
                    self.last = batch[made - 1][0] if made else batch[-1][0]
                    return difference
                self.last = batch[-1][0]
                batch = []
                if self.made >= due or index is None:
                    due += self.options.interval
                    found = compare.compare_trees(self.roots, started, self.explained, self.options.label)
                    if found:
                        return f"the trees differ after operation {self.last}:\n    " + "\n    ".join(found[:10])
            batch.append((index, operation))
        return None


def ranges(numbers):
    """{1, 2, 3, 7} as "1-3,7"."""
    parts, numbers = [], sorted(numbers)
    while numbers:
        end = 0
        while end + 1 < len(numbers) and numbers[end + 1] == numbers[end] + 1:
            end += 1
        parts.append(str(numbers[0]) if end == 0 else f"{numbers[0]}-{numbers[end]}")
        numbers = numbers[end + 1:]
    return ",".join(parts)


def parse(text):
    """"1-3,7" as {1, 2, 3, 7}."""
    numbers = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        numbers.update(range(int(first), int(last or first) + 1))
    return numbers


def kind(difference):
    """What differs, without the place: the call, or the trees."""
    return difference and (difference.split("'")[1] if difference.startswith("operation") else "trees")


def shrink(options, seed, last, wanted):
    """The shortest sequence found with a difference of the wanted kind: calls and then parts are left out, as long as it stays."""
    options.interval = 10**9
    kept = list(range(last + 1))
    deadline = time.monotonic() + options.shrink_seconds
    everything = set(kept)
    turns = 0

    def differs(candidate):
        """The difference of the wanted kind that this part of the sequence has, or None."""
        nonlocal turns
        turns += 1
        found = Run(options, seed, everything - set(candidate), last + 1, f"-{turns}").go()
        return found if kind(found) == wanted else None
    difference = differs(kept)
    if difference is None:
        return kept, "the difference did not come again"
    generator = operations.Generator(seed)
    calls = [generator.next()[1] for _ in everything]
    for call in sorted(set(calls)):
        if time.monotonic() > deadline:
            break
        candidate = [index for index in kept if calls[index] != call]
        if candidate and (found := differs(candidate)):
            kept, difference = candidate, found
    size = len(kept) // 2
    while size >= 1 and time.monotonic() < deadline:
        start = len(kept)
        while start > 0 and time.monotonic() < deadline:
            start = max(0, start - size)
            candidate = kept[:start] + kept[start + size:]
            if candidate and (found := differs(candidate)):
                kept, difference = candidate, found
        size //= 2
    return kept, difference
