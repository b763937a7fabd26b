"""An ioctl on the working directory: control.py REQUEST ARGUMENT [user]. Prints what came of it; with `user` as another user."""
import errno, fcntl, os, struct, sys
if len(sys.argv) > 3: os.setgroups([]), os.setresgid(1000, 1000, 1000), os.setresuid(1000, 1000, 1000)
try: print(fcntl.ioctl(os.open(".", os.O_RDONLY), int(sys.argv[1], 0), eval(sys.argv[2], {"struct": struct})))
except OSError as error: print(errno.errorcode[error.errno])
