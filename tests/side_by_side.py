#!/usr/bin/env python3
"""Builds all tests and runs their programs side by side, one for each core (`make test`).

`cargo test` runs one program after the other, and most of them wait more than they compute.
What a program printed is shown whole when it ends; the last line counts all of them.
Arguments go to `cargo test`, e.g. `tests/side_by_side.py --locked --test decode`.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CARGO = os.environ.get("CARGO", "cargo")
# Begun first, so that no long one is left alone at the end.
LONG = ["broker_patience", "life_cuts", "counter_cuts", "store_every_call", "campaign", "vehicle_slcan",
        "card_member", "counter_rekey", "baygate"]
# A program that hangs is ended, so that what it printed is seen.
LIMIT_S = 1200
RESULT = re.compile(r"^test result: .*?(\d+) passed; (\d+) failed; (\d+) ignored", re.M)


def programs(arguments):
    """Name and path of every test program, built."""
    build = subprocess.Popen([CARGO, "test", "--no-run", "--message-format=json-render-diagnostics", *arguments],
                             cwd=ROOT, stdout=subprocess.PIPE, text=True)
    found = []
    for line in build.stdout:
        message = json.loads(line)
        if message.get("executable") and message.get("profile", {}).get("test"):
            found.append((message["target"]["name"], message["executable"]))
    if build.wait() != 0:
        sys.exit(build.returncode)
    return sorted(found, key=lambda each: (LONG.index(each[0]) if each[0] in LONG else len(LONG), each[0]))


def run(name, path):
    """Runs one program; what it printed, its exit code and how long it took."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as out:
        child = subprocess.Popen([path], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                                 env={**os.environ, "CARGO_MANIFEST_DIR": str(ROOT)})
        try:
            code = child.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            code = f"ended after {LIMIT_S} s"
        out.seek(0)
        text = out.read().decode(errors="replace")
    return name, code, text, time.monotonic() - began


def main():
    arguments = sys.argv[1:]
    found = programs(arguments)
    failed, counts = [], [0, 0, 0]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, each in enumerate(as_completed([pool.submit(run, *one) for one in found]), 1):
            name, code, text, seconds = each.result()
            print(f"\n[{done}/{len(found)}] {name}: {'ok' if code == 0 else code}, {seconds:.0f} s\n{text.strip()}", flush=True)
            results = RESULT.findall(text)
            for numbers in results:
                counts = [total + int(number) for total, number in zip(counts, numbers)]
            if code != 0 or not results:
                failed.append(name)
    # Examples in the documentation are compiled and run by rustdoc.
    if not arguments or "--test" not in arguments:
        if subprocess.run([CARGO, "test", "--doc", *arguments], cwd=ROOT).returncode != 0:
            failed.append("--doc")
    if failed:
        print("failed:", " ".join(failed), "(alone: cargo test --test NAME)")
    print(f"{counts[0]} passed, {max(counts[1], len(failed))} failed, {counts[2]} skipped")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
