"""Decodes a candump log with cantools: the peer of `benches/decode.rs`.

Arguments: the DBC file, the log. Prints frames decoded and the seconds the loop
took; starting Python and reading the database do not count.
"""

import sys
import time

import cantools

database = cantools.database.load_file(sys.argv[1])
with open(sys.argv[2], encoding="ascii") as log:
    lines = log.readlines()

frames = 0
signals = 0
begun = time.perf_counter()
for line in lines:
    frame = line.split()[2]
    arbitration_id, data = frame.split("#", 1)
    values = database.decode_message(int(arbitration_id, 16), bytes.fromhex(data), decode_choices=False)
    frames += 1
    signals += len(values)
print(frames, signals, time.perf_counter() - begun)
