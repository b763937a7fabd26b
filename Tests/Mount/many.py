"""Makes many files, looks at them, removes them: many.py make|look|remove DIRECTORY COUNT."""
import os, sys, time
what, root, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
flat, tree = f"{root}/flat", f"{root}/tree"
def place(number): return f"{tree}/{number % 100}/{number // 100 % 100}/f{number}"
start = time.time()
if what == "make":
    os.mkdir(flat)
    directory = os.open(flat, os.O_RDONLY)
    for number in range(count): os.close(os.open(f"file{number:07}", os.O_CREAT | os.O_WRONLY | os.O_EXCL, dir_fd=directory))
    for number in range(min(count, 10000)): os.makedirs(os.path.dirname(place(number)), exist_ok=True)
    for number in range(count):
        with open(place(number), "xb", buffering=0) as file: file.write(b"%d" % number)
elif what == "look":
    names = os.listdir(flat)
    assert len(names) == count == len(set(names)), f"{len(names)} names"
    assert set(names) == {f"file{number:07}" for number in range(count)}
    for number in range(0, count, 7): assert os.stat(f"{flat}/file{number:07}").st_size == 0
    for number in range(0, count, 11): assert open(place(number), "rb").read() == b"%d" % number
    assert sum(len(files) for _, _, files in os.walk(tree)) == count
elif what == "remove":
    for name in os.listdir(flat): os.unlink(f"{flat}/{name}")
    os.rmdir(flat)
    for base, directories, files in os.walk(tree, topdown=False):
        for name in files: os.unlink(f"{base}/{name}")
        os.rmdir(base)
    assert os.listdir(root) == [], os.listdir(root)
print(f"    {what}: {time.time() - start:.1f} s")
