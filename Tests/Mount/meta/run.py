"""Metadata calls, one line of results for each: run in a directory of ext4 and in one of Treering, the lines must be the same.

    run.py DIRECTORY [TEST...]    Everything is made below DIRECTORY. Root; users 1000 to 1002 need not exist.
"""
import importlib
import os
import sys

sys.dont_write_bytecode = True
from results import tests  # noqa: E402

# They add their tests to the list when they are read.
for part in ("permissions", "attributes", "names", "flags", "locks"):
    importlib.import_module(part)


def main():
    """Runs the tests that the command line names, or all, each in a directory of its own."""
    os.umask(0o022)
    chosen = sys.argv[2:]
    base = os.path.realpath(sys.argv[1])
    for function in tests:
        if chosen and function.__name__ not in chosen:
            continue
        directory = os.path.join(base, function.__name__)
        os.mkdir(directory)
        os.chmod(directory, 0o777)
        os.chdir(directory)
        try:
            for result in function():
                parts = result if isinstance(result, tuple) else (result,)
                print(f"{function.__name__}: " + " | ".join(str(part) for part in parts), flush=True)
        except Exception as error:
            line = error.__traceback__
            while line.tb_next:
                line = line.tb_next
            print(f"{function.__name__}: raised {error!r} in line {line.tb_lineno}", flush=True)
    return 0


sys.exit(main())
