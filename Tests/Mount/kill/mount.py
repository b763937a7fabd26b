"""The mount that is killed: started, looked for, killed, ended, checked."""
import os
import signal
import subprocess
import time

from settings import Tally, Wrong, engine, full, mount_point, store, treering


def owner():
    """The process that holds the store, if it is one of ours."""
    try:
        pid = int(open(f"{store}/lock").readline())
        command = open(f"/proc/{pid}/cmdline", "rb").read().replace(b"\0", b" ").decode()
        return pid if "treering" in command and store in command else None
    except (OSError, ValueError):
        return None


def wait_gone(pid, seconds=30):
    """Waits until a process is gone; a zombie is."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if ") Z " in open(f"/proc/{pid}/stat").read():
                return
        except OSError:
            return
        time.sleep(0.005)
    raise Wrong(f"process {pid} is still there {seconds} s after it was killed")


def kill_owner(what):
    """Kills the process that holds the store, if there is one; `what` it is doing."""
    pid = owner()
    if pid is None: return
    try: os.kill(pid, signal.SIGKILL)
    except ProcessLookupError: return
    Tally.when[what] += 1
    wait_gone(pid)


def options(generator):
    """Small staging rolls batches, a short commit interval overlaps them with the work."""
    words = [f"engine={engine}"]
    # What a store may hold depends on what staging may: a full one always gets the same.
    if generator.random() < 0.3 and not full: words.append("staging=1M")
    if generator.random() < 0.3: words.append("commit=1")
    if generator.random() < 0.3: words.append("index_cache=4M")
    if full: words.append("clean=eager")
    return ",".join(words)


def start(generator):
    """Mounts over what is left of the dead mount. One mount in four is killed while it recovers."""
    # A dead mount is no obstacle.
    if generator.random() < 0.5: clear()
    words = [treering, "mount", store, mount_point, "-o", options(generator)]
    if generator.random() < 0.25:
        process = subprocess.Popen(words, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 5
        while owner() is None and process.poll() is None and time.monotonic() < end: time.sleep(0.001)
        time.sleep(generator.random() ** 2 * 0.06)
        pid = owner()
        try: os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError: pass
        process.wait()
        if pid is not None:
            # Its own session once the mount is usable.
            try: os.kill(pid, signal.SIGKILL)
            except ProcessLookupError: pass
            wait_gone(pid)
            Tally.when["mounting"] += 1
    clear()
    answer = subprocess.run(words, timeout=120, capture_output=True, text=True)
    if answer.returncode != 0: raise Wrong(f"does not mount again: {answer.stderr.strip()}")
    if answer.stderr.strip(): print("   ", answer.stderr.strip())


def clear():
    """Takes away every dead mount at the mount point."""
    while f" {mount_point} fuse" in open("/proc/mounts").read():
        if subprocess.run(["fusermount3", "-uz", mount_point], capture_output=True).returncode != 0:
            subprocess.run(["umount", "-l", mount_point], check=True)


def stop():
    """Unmounts, and waits until the serving process has left."""
    pid = owner()
    for _ in range(40):
        if subprocess.run(["fusermount3", "-u", mount_point], capture_output=True).returncode == 0: break
        time.sleep(0.1)
    else: raise Wrong("cannot be unmounted")
    if pid is not None: wait_gone(pid)


def check():
    """A check of the store finds nothing."""
    answer = subprocess.run([treering, "check", store], timeout=600, capture_output=True, text=True)
    if answer.returncode != 0: raise Wrong(f"check: exit {answer.returncode}: {(answer.stdout + answer.stderr).strip()[-1000:]}")
