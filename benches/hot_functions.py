#!/usr/bin/env python3
"""Finds the functions the daemon really runs, and writes `src/hot_functions.txt` (`make hot-functions`).

Of 25 MB of code a day at a store runs a quarter, in small pieces that lie everywhere; the kernel
maps 64 KiB around each of them, and all of that is resident. `src/build.rs` has the linker put the
pieces side by side. What is listed is a family: the symbol without its hash, so that the list
outlives compilers and most changes. Of a family that is mostly idle (a generic function made for
many types) the hashes of the busy members stand behind it. What the list misses costs memory and
nothing else.

Two runs under callgrind: the daemon with a car, a printer and a broker, and the demo, which adds
cards. What belongs to the demo's own props or to faces of cards is left out.
"""

import bisect
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "src" / "hot_functions.txt"
# Props of the demo, and faces, which are drawn once in a while.
PROPS = re.compile(r"mqtt5|baygate\.\.(sim|demo)|7baygate(3sim|4demo)|usvg|resvg|tiny_skia|skrifa|harfrust|read_fonts|fontdb")
HASH = re.compile(r"(?:17h([0-9a-f]{16})E)?(?:\.llvm\.\d+)?$")
# A family with more idle bytes than this has its busy members named.
IDLE_BYTES = 5000


def traced(program, arguments, seconds, out):
    """Runs the program under callgrind; asks it to stop after `seconds`, if any are given."""
    child = subprocess.Popen(
        ["valgrind", "--tool=callgrind", "--dump-instr=yes", f"--callgrind-out-file={out}", program, *arguments],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if seconds:
        time.sleep(seconds)
        child.send_signal(signal.SIGTERM)
    if child.wait(300) != 0:
        sys.exit(f"{program} {' '.join(arguments)}: exit {child.returncode}; run it by hand to see why")


def daemon(program, folder, out):
    """The daemon with a car, a printer and a broker for a minute."""
    (folder / "data").mkdir()
    port = 18999
    (folder / "broker.conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    (folder / "baygate.toml").write_text(f'''
[gateway]
store = "SH-0042"
id = "gw-1"
data_dir = "{folder}/data"
firmware_protocols = "{ROOT}/firmware-protocols"
share_dir = "{ROOT}/config"
[mqtt]
url = "mqtt://127.0.0.1:{port}"
confirm = "broker"
[api]
listen = "127.0.0.1:0"
control_socket = "{folder}/control"
[[reader]]
id = "counter-1"
kind = "pcsc"
name = "Virtual PCD 00 00"
[[vehicle]]
id = "bay-1"
link = "elm327+serial://{folder}/vehicle?baud=38400"
[[printer]]
id = "face-1"
kind = "star-tcp300"
link = "serial://{folder}/printer?baud=38400"
reader = "counter-1"
''')
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    beside = [subprocess.Popen(["/usr/sbin/mosquitto", "-c", folder / "broker.conf"], **quiet)]
    beside += [subprocess.Popen([program, "simulate", what, "--pty", "--link-to", folder / what], **quiet)
               for what in ("vehicle", "printer")]
    try:
        while not all((folder / what).exists() for what in ("vehicle", "printer")):
            time.sleep(0.1)
        traced(program, ["run", "--config", f"{folder}/baygate.toml"], 60, out)
    finally:
        for child in beside:
            child.kill()


def executed(program, out):
    """Addresses of the program's instructions that were run (callgrind's format, "positions: instr")."""
    objects, ours, address, found = {}, False, 0, set()
    for line in open(out):
        named = re.match(r"(c?ob)=\((\d+)\)(?: (.*))?", line)
        if named:
            if named[3]:
                objects[named[2]] = named[3].strip()
            if named[1] == "ob":
                ours = objects.get(named[2]) == program
            continue
        at = re.match(r"(0x[0-9a-f]+|[+-]\d+|\*) ", line)
        if at:
            if at[1].startswith("0x"):
                address = int(at[1], 16)
            elif at[1] != "*":
                address += int(at[1])
            if ours:
                found.add(address)
    return found


def functions(program):
    """(address, size, symbol) of every function, in the order of addresses."""
    listed = subprocess.run(["nm", "--print-size", "--numeric-sort", program], capture_output=True, text=True, check=True)
    fields = (line.split() for line in listed.stdout.splitlines())
    return [(int(f[0], 16), int(f[1], 16), f[3]) for f in fields if len(f) == 4 and f[2] in "tTwW"]


def main():
    program = os.path.realpath(sys.argv[1])
    addresses = set()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        daemon(program, folder, folder / "daemon.out")
        traced(program, ["demo", "--for", "40s"], None, folder / "demo.out")
        for out in ("daemon.out", "demo.out"):
            addresses |= executed(program, folder / out)
    every = functions(program)
    starts = [start for start, _, _ in every]
    hot = set()
    for address in addresses:
        start, size, symbol = every[bisect.bisect_right(starts, address) - 1]
        if start <= address < start + size and not PROPS.search(symbol):
            hot.add(symbol)
    if len(hot) < 1000:
        sys.exit(f"only {len(hot)} functions were seen: is the program stripped of its symbols, or linked by a list already?")
    busy, idle = {}, {}
    for _, size, symbol in every:
        family = HASH.sub("", symbol)
        if symbol in hot:
            busy.setdefault(family, set()).add(HASH.search(symbol)[1])
        else:
            idle[family] = idle.get(family, 0) + size
    lines = []
    for family, hashes in sorted(busy.items()):
        named = sorted(h for h in hashes if h) if idle.get(family, 0) > IDLE_BYTES else []
        lines.append(" ".join([family, *named]))
    LIST.write_text("\n".join(lines) + "\n")
    print(f"{LIST.relative_to(ROOT)}: {len(hot)} of {len(every)} functions, {len(lines)} families")


main()
