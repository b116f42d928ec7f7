#!/usr/bin/env python3
"""Builds all tests and runs their programs side by side, one for each core (`make test`).

`cargo test` runs one program after the other, and most of them wait more than they compute.
What a program printed is shown whole when it ends; the last line counts all of them.

A program that fails runs once more when all others have ended, alone and with the seed it had. What is
wrong in the code or in what was drawn fails again; what passes then is named "unsteady" at the end, with
how it failed, and does not fail the run. More than a few of them do. Proofs that nothing is lost, doubled or
reordered may have waited in vain where others took the processors; whatever else they say counts at once,
because a race that loses something once in twenty runs would pass the second time.
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
LONG = ["broker_patience", "life_cuts", "counter_cuts", "store_every_call", "cuts_issue", "cuts_life", "campaign",
        "cuts_money", "cuts_points", "cuts_undone", "vehicle_slcan", "card_member", "counter_rekey", "baygate"]
# A program that hangs is ended, so that what it printed is seen.
LIMIT_S = 1200
# Programs that may fail beside others and pass alone.
UNSTEADY_MOST = 3
# Names of programs that are proofs, and what a panic says that waited in vain.
PROOF = re.compile(r"campaign|cuts_|uplink_|fault_proxy|store_|clock_|broker_|daemon_(full|disk)|counter_|life_|purse_|card_member_cuts")
WAITED = re.compile(r"in vain|\bnever\b|ever came|waited|Elapsed|not within|deadline|longer than|: only \d")
# What was waited for is the proof itself.
PROVEN = re.compile(r"not delivered|headquarters lacks|is lost|was lost")
PANIC = re.compile(r"panicked at [^\n]*:\n([^\n]*)")
# Lines of a failure that are shown again at the end.
SHOWN_AGAIN = 60
SEED = re.compile(r"^BAYGATE_SEED=(\d+)", re.M)
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


def run(name, path, seed=None):
    """Runs one program; what it printed, its exit code and how long it took."""
    environment = {**os.environ, "CARGO_MANIFEST_DIR": str(ROOT), **({"BAYGATE_SEED": seed} if seed else {})}
    began = time.monotonic()
    with tempfile.TemporaryFile() as out:
        child = subprocess.Popen([path], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                                 env=environment)
        try:
            code = child.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            code = f"ended after {LIMIT_S} s"
        out.seek(0)
        text = out.read().decode(errors="replace")
    return name, code, text, time.monotonic() - began


def passed(code, text):
    """Whether a program ended well and ran tests at all."""
    return code == 0 and RESULT.search(text) is not None


def counts_at_once(name, text):
    """Whether a proof failed otherwise than by waiting."""
    said = PANIC.findall(text)
    waited = said and all(WAITED.search(one) and not PROVEN.search(one) for one in said)
    return PROOF.match(name) is not None and not waited


def again(name, path, text):
    """Runs a program that failed once more, alone; whether it passes now."""
    seed = SEED.search(text)
    _, code, second, seconds = run(name, path, seed and seed.group(1))
    print(f"\n[again, alone] {name}: {'ok' if code == 0 else code}, {seconds:.0f} s\n{second.strip()}", flush=True)
    return passed(code, second)


def main():
    arguments = sys.argv[1:]
    found = programs(arguments)
    failures, counts = {}, [0, 0, 0]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, each in enumerate(as_completed([pool.submit(run, *one) for one in found]), 1):
            name, code, text, seconds = each.result()
            print(f"\n[{done}/{len(found)}] {name}: {'ok' if code == 0 else code}, {seconds:.0f} s\n{text.strip()}", flush=True)
            for numbers in RESULT.findall(text):
                counts = [total + int(number) for total, number in zip(counts, numbers)]
            if not passed(code, text):
                failures[name] = text
    unsteady = []
    if len(failures) <= UNSTEADY_MOST:
        paths = dict(found)
        unsteady = [name for name, text in failures.items()
                    if again(name, paths[name], text) and not counts_at_once(name, text)]
    failed = [name for name in failures if name not in unsteady]
    # Examples in the documentation are compiled and run by rustdoc.
    if not arguments or "--test" not in arguments:
        if subprocess.run([CARGO, "test", "--doc", *arguments], cwd=ROOT).returncode != 0:
            failed.append("--doc")
    for name, text in failures.items():
        print(f"\nhow {name} failed:", *text.strip().splitlines()[-SHOWN_AGAIN:], sep="\n")
    if unsteady:
        print("unsteady, failed beside others and passed alone with the same seed:", " ".join(unsteady))
    if failed:
        print("failed:", " ".join(failed), "(alone: cargo test --test NAME)")
    print(f"{counts[0]} tests passed, {counts[1]} failed at first, {counts[2]} skipped; "
          f"of {len(found)} programs {len(failed)} failed, {len(unsteady)} unsteady")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
