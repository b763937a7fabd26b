"""A file handle, saved and opened: handle.py save|open FILE. Prints the inode, or the error."""
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
class Handle(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("data", ctypes.c_ubyte * 128)]
handle, number = Handle(bytes=128), ctypes.c_int()
if sys.argv[1] == "save":
    assert libc.name_to_handle_at(-100, b"d/f", ctypes.byref(handle), ctypes.byref(number), 0) == 0
    open(sys.argv[2], "wb").write(bytes(handle))
else:
    handle = Handle.from_buffer_copy(open(sys.argv[2], "rb").read())
    descriptor = libc.open_by_handle_at(os.open(".", os.O_RDONLY), ctypes.byref(handle), os.O_RDONLY)
    print(os.fstat(descriptor).st_ino if descriptor >= 0 else os.strerror(ctypes.get_errno()))
