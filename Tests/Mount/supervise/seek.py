"""Kills a serving process while its helper waits in the kernel for a write-back that an lseek for a hole brought about.

    seek.py FILE PID [COMMAND [PID]]    prints the helper's pid, and what lseek said: an offset or an error. The command is run before, and
                                        the other process killed first.
"""
import glob
import mmap
import os
import signal
import subprocess
import sys
import threading

PAGE = 4096
SIZE = 256 << 20
path, server = sys.argv[1], int(sys.argv[2])


def read(name):
    try:
        with open(name) as file:
            return file.read()
    except OSError:
        return ""


def helper():
    for name in glob.glob(f"/proc/{server}/task/*/children"):
        for pid in read(name).split():
            if "notify-helper" in read(f"/proc/{pid}/cmdline"):
                return int(pid)
    return None


file = os.open(path, os.O_RDWR | os.O_CREAT)
os.ftruncate(file, SIZE)
# The first time brings the helper.
os.lseek(file, 0, os.SEEK_HOLE)
pid = helper()
print(pid, flush=True)
if len(sys.argv) > 3:
    subprocess.run(sys.argv[3], shell=True, check=True, stdout=subprocess.DEVNULL)
memory = mmap.mmap(file, SIZE)
is_over = False
is_killed = False


def kill_when_it_waits():
    global is_killed
    tasks = glob.glob(f"/proc/{pid}/task/*/stat")
    while not is_over:
        if any(") D " in read(task) for task in tasks):
            is_killed = True
            for process in sys.argv[4:] + [server]:
                os.kill(int(process), signal.SIGKILL)
            return


for attempt in range(20):
    # From the end: nothing is written back in a row.
    for offset in range(SIZE - PAGE, 0, -2 * PAGE):
        memory[offset] = attempt + 1
    is_over = False
    watcher = threading.Thread(target=kill_when_it_waits)
    watcher.start()
    try:
        answer = os.lseek(file, 0, os.SEEK_DATA)
    except OSError as error:
        answer = error.strerror
    is_over = True
    watcher.join()
    if is_killed:
        print(answer, flush=True)
        break
    # It was too quick: once more, with holes again.
    os.ftruncate(file, 0)
    os.ftruncate(file, SIZE)
else:
    print("the helper was never seen waiting")
os._exit(0)
