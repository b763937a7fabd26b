"""Changes fields of inodes in the index of a store and makes the checksums right again: hostile.py INDEX MODE LINKS OFFSET WIDTH VALUE."""
import struct, sys

TABLE = []
for number in range(256):
    for _ in range(8): number = number >> 1 ^ (0x82F63B78 if number & 1 else 0)
    TABLE.append(number)

def crc32c(data):
    state = 0xFFFFFFFF
    for byte in data: state = TABLE[(state ^ byte) & 255] ^ state >> 8
    return state ^ 0xFFFFFFFF

def main(index, mode, links, offset, width, value):
    """Changes a field of every inode with this mode and link count, in every page of the index, and makes the checksum right again."""
    pattern = struct.pack("<II", int(mode, 8), int(links))
    data = bytearray(open(index, "rb").read())
    count = 0
    for start in range(8192, len(data) - 8191, 8192):
        page = data[start:start + 8192]
        place = page.find(pattern)
        if place < 64 or page[36] != 0: continue
        while place >= 0:
            # The record begins 16 bytes behind the beginning of the entry; offsets are the entry's.
            field = place - 16 + int(offset)
            page[field:field + int(width)] = int(value, 0).to_bytes(int(width), "little")
            count += 1
            place = page.find(pattern, place + 8)
        page[0:4] = bytes(4)
        page[0:4] = struct.pack("<I", crc32c(page))
        data[start:start + 8192] = page
    open(index, "wb").write(data)
    sys.exit(0 if count else "no such inode")

main(*sys.argv[1:])
