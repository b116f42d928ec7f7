"""Decodes the frames of a candump log with cantools: the peer of `benches/decode.rs`,
decoding alone.

Arguments: the DBC file, the log. Prints frames decoded, values found, and the seconds the
loop took; starting Python, reading the database and the log do not count.
"""

import sys
import time

import cantools

database = cantools.database.load_file(sys.argv[1])
frames = []
with open(sys.argv[2], encoding="ascii") as log:
    for line in log:
        arbitration_id, data = line.split()[2].split("#", 1)
        frames.append((int(arbitration_id, 16), bytes.fromhex(data)))

signals = 0
begun = time.perf_counter()
for arbitration_id, data in frames:
    signals += len(database.decode_message(arbitration_id, data, decode_choices=False))
print(len(frames), signals, time.perf_counter() - begun)
