"""FUSE mounts as the kernel lists them, and how they are taken away whatever state they are in."""
import glob
import os
import signal
import subprocess


def mounted(below, kind="fuse"):
    """The mounts at or below a directory whose type begins with `kind`: pairs of device number and mount point, the last one first."""
    found = []
    with open("/proc/self/mountinfo", errors="surrogateescape") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            device, point = before.split()[2], before.split()[4]
            if after.startswith(kind) and (point == below or point.startswith(below + "/")):
                found.append((device, point))
    return found[::-1]


def run(*words):
    """Runs a command without its words; whether it succeeded."""
    return subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def take_away(point, is_lazy=False):
    """Unmounts one; lazily, if that is asked for. Whether it went."""
    if is_lazy:
        return run("fusermount3", "-u", "-z", point) or run("umount", "-l", point)
    return run("fusermount3", "-u", point) or run("umount", point)


def sweep(directory):
    """Takes away the mounts of Treering below a directory that a test could not take away itself, with the processes that serve them."""
    for device, point in mounted(directory, "fuse.treering"):
        print(f"   left behind: {point}")
        connection = f"/sys/fs/fuse/connections/{device.partition(':')[2]}/abort"
        if os.access(connection, os.W_OK):
            with open(connection, "w") as file:
                file.write("1")
        take_away(point, is_lazy=True)
        place = os.path.dirname(point)
        for lock in glob.glob(glob.escape(place) + "/*/lock"):
            kill_server(lock, place)
        run("rm", "-rf", "--one-file-system", place)


def kill_server(lock, place):
    """Kills the process that a store's lock file names, if it serves a store of this place."""
    try:
        with open(lock) as file:
            pid = int(file.readline())
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            command = file.read().replace(b"\0", b" ").decode(errors="replace")
        if "treering" in command and " mount " in command and place in command:
            os.kill(pid, signal.SIGKILL)
    except (OSError, ValueError):
        pass
