"""The servos of an SO-101 behind a pseudo terminal: what a program sees of the arm through its serial port.

Feetech's protocol 0 (header FF FF, id, length, instruction or error, parameters, checksum) with ping, read, write, sync
read and sync write; registers as in the STS3215's memory table. A servo turns towards its goal at a limited speed while
its torque is on, and stands while it is off.
"""

from __future__ import annotations

import os
import select
import threading
import time
import tty

MODEL, FIRMWARE = 777, (3, 10)  # of an STS3215
COUNTS = 4096  # of a turn
SPEED = 3000.0  # counts/s, about 4.6 rad/s
TORQUE, GOAL, POSITION = 40, 42, 56  # addresses
PING, READ, WRITE, SYNC_READ, SYNC_WRITE, EVERYONE = 0x01, 0x02, 0x03, 0x82, 0x83, 0xFE


class Servo:
    """One servo: 128 bytes of registers and a shaft."""

    def __init__(self, number: int, position: float, low: int, high: int):
        self.registers = bytearray(128)
        self.registers[0:2] = bytes(FIRMWARE)
        self.registers[5] = number
        for address, value in ((3, MODEL), (9, low), (11, high)):
            self.registers[address : address + 2] = value.to_bytes(2, "little")
        self.at, self.seen = position, time.monotonic()

    def turn(self) -> None:
        """Brings the shaft to where it is by now."""
        now = time.monotonic()
        way = SPEED * (now - self.seen)
        self.seen = now
        if self.registers[TORQUE]:
            goal = int.from_bytes(self.registers[GOAL : GOAL + 2], "little")
            self.at += min(max(goal - self.at, -way), way)
        self.registers[POSITION : POSITION + 2] = round(self.at).to_bytes(2, "little")

    def write(self, address: int, data: bytes) -> None:
        self.turn()
        if address == TORQUE and data[0] and not self.registers[TORQUE]:  # holds where it stands
            self.registers[GOAL : GOAL + 2] = self.registers[POSITION : POSITION + 2]
        self.registers[address : address + len(data)] = data

    def read(self, address: int, length: int) -> bytes:
        self.turn()
        return bytes(self.registers[address : address + length])


class Servos:
    """A bus of servos numbered from 1.

    Args:
        positions: where each stands, counts.
        ranges: [(low, high)] of each, counts.

    Attributes:
        port: path of the terminal that stands for the serial port.
        lose: how many of the next answers get lost on the wire.
    """

    def __init__(self, positions: list[float], ranges: list[tuple[int, int]]):
        every = zip(positions, ranges, strict=True)
        self.servos = {i: Servo(i, at, low, high) for i, (at, (low, high)) in enumerate(every, 1)}
        self.ours, theirs = os.openpty()
        tty.setraw(theirs)
        self.port, self.theirs, self.lose, self.quit = os.ttyname(theirs), theirs, 0, False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        waiting = b""
        while not self.quit:
            if not select.select([self.ours], [], [], 0.05)[0]:
                continue
            waiting += os.read(self.ours, 4096)
            while (packet := packet_in(waiting)) is not None:
                whole, waiting = packet
                self.answer(whole[2], whole[4], whole[5:-1])

    def answer(self, number: int, instruction: int, values: bytes) -> None:
        if instruction == SYNC_WRITE:  # address, length, then number and data of each
            each = 1 + values[1]
            for i in range(2, len(values), each):
                self.servos[values[i]].write(values[0], values[i + 1 : i + each])
        elif instruction == SYNC_READ:  # address, length, numbers
            for n in values[2:]:
                self.send(n, self.servos[n].read(values[0], values[1]))
        elif instruction == PING:
            for n in self.servos if number == EVERYONE else [number]:
                self.send(n, b"")
        elif number in self.servos and instruction == READ:
            self.send(number, self.servos[number].read(values[0], values[1]))
        elif number in self.servos and instruction == WRITE:
            self.servos[number].write(values[0], values[1:])
            self.send(number, b"")

    def send(self, number: int, data: bytes) -> None:
        if number not in self.servos:
            return
        if self.lose > 0:
            self.lose -= 1
            return
        body = bytes((number, len(data) + 2, 0)) + data
        os.write(self.ours, b"\xff\xff" + body + bytes((~sum(body) & 0xFF,)))

    def positions(self) -> list[float]:
        """Where the shafts are, counts."""
        for servo in self.servos.values():
            servo.turn()
        return [servo.at for servo in self.servos.values()]

    def close(self) -> None:
        self.quit = True
        self.thread.join()
        os.close(self.ours)
        os.close(self.theirs)


def packet_in(data: bytes) -> tuple[bytes, bytes] | None:
    """The first whole packet in `data` and what follows it; None while there is none."""
    start = data.find(b"\xff\xff")
    if start < 0 or len(data) < start + 4 or len(data) < (end := start + 4 + data[start + 3]):
        return None
    packet = data[start:end]
    if ~sum(packet[2:-1]) & 0xFF == packet[-1]:
        return packet, data[end:]
    return packet_in(data[start + 1 :])
