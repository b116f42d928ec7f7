"""Asks a car through python-OBD: the peer of `benches/vehicle.rs`.

`values PORT SECONDS PID…` asks the PIDs of service 01 one after the other and
prints how many values came in how many seconds, connecting not counted.
`report PORT PID…` asks everything python-OBD says the car supports of services 01,
06 and 09, the codes, and these PIDs of the freeze frame, and prints values and
seconds, connecting counted, import not.
"""

import sys
import time

import obd

obd.logger.setLevel(obd.logging.ERROR)


def values(port, seconds, pids):
    connection = obd.OBD(port, fast=True)
    commands = [obd.commands[1][int(pid, 16)] for pid in pids]
    for command in commands:
        connection.query(command)
    count = 0
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds:
        for command in commands:
            count += not connection.query(command).is_null()
    print(count, time.perf_counter() - begun)


def report(port, freeze_frame):
    frozen = [int(pid, 16) for pid in freeze_frame]
    begun = time.perf_counter()
    connection = obd.OBD(port, fast=True)
    count = 0
    for command in sorted(connection.supported_commands, key=lambda command: command.command):
        # Adapter commands and the codes' clearing are no part of a report.
        wanted = command.mode in (1, 3, 6, 7, 9) or command.name == "ELM_VOLTAGE"
        if wanted or command.mode == 2 and command.pid in frozen:
            count += not connection.query(command).is_null()
    print(count, time.perf_counter() - begun)


if sys.argv[1] == "values":
    values(sys.argv[2], float(sys.argv[3]), sys.argv[4:])
else:
    report(sys.argv[2], sys.argv[3:])
