"""Looks for data in 40 mapped files at once: seeks.py DIRECTORY. Prints how many answers there were, and which."""
import mmap, os, sys, threading
files = [os.open(f"{sys.argv[1]}/f{n}", os.O_RDWR | os.O_CREAT) for n in range(40)]
maps = []
for fd in files:
    os.ftruncate(fd, 1 << 20)
    maps.append(mmap.mmap(fd, 1 << 20))
    for place in range(0, 1 << 20, 16384):
        maps[-1][place + 4096] = 1
found = []
threads = [threading.Thread(target=lambda fd=fd: found.append(os.lseek(fd, 0, os.SEEK_DATA)), daemon=True) for fd in files]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(30)
print(len(found), set(found))
os._exit(0)
