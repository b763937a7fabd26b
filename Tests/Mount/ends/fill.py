"""Writes a file of 16,000 blocks in disorder, each with its own place in it: fill.py FILE."""
import os, random, struct, sys
file = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
order = list(range(16000))
random.Random(1).shuffle(order)
for block in order: os.pwrite(file, struct.pack("<Q", block * 4096) * 512, block * 4096)
