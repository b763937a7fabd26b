"""Looks over the programs that are not Swift: Python compiles, pyflakes and shellcheck have nothing to say where they are installed."""
import os
import shutil
import subprocess


def scripts(root):
    """The shell and the Python files of the project, as two lists."""
    shell, python = [], []
    for top in ("mount-scripts", "Tests", ".ci"):
        for directory, _, names in os.walk(os.path.join(root, top)):
            for path in (os.path.relpath(os.path.join(directory, name), root) for name in sorted(names)):
                with open(os.path.join(root, path), "rb") as file:
                    first = file.readline()
                if path.endswith(".py") or first.startswith(b"#!") and b"python" in first:
                    python.append(path)
                elif path.endswith(".sh") or first.startswith(b"#!") and b"sh" in first:
                    shell.append(path)
    return shell, python


def check(root):
    """Prints what is wrong; 0 when nothing is."""
    shell, python = scripts(root)
    code = 0
    for path in python:
        with open(os.path.join(root, path)) as file:
            try:
                compile(file.read(), path, "exec")
            except SyntaxError as error:
                print(f"   {path}:{error.lineno}: {error.msg}")
                code = 1
    has_pyflakes = subprocess.run(["python3", "-c", "import pyflakes"], stderr=subprocess.DEVNULL).returncode == 0
    tools = [(has_pyflakes, ["python3", "-m", "pyflakes", *python]), (shutil.which("shellcheck"), ["shellcheck", "-x", *shell])]
    running = [subprocess.Popen(words, cwd=root, stdin=subprocess.DEVNULL) for is_there, words in tools if is_there]
    return max([code] + [process.wait() for process in running])
