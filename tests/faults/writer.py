"""A program that writes numbered lines to a log at a steady rate, each by one write(2)."""

import os
import re
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple, Self

from tests.folders import ROOT
from tests.impossible import impossible

RATE = 5000  # lines a second
_NUMBER = re.compile(rb"\bn(\d{7})\b")


def message(number: int) -> str:
    """What qpopper says: every hundredth time somebody logs in."""
    if number % 100:
        return f"(v4.0.5) number n{number:07d} {'x' * (number % 50)}"
    return f'(v4.0.5) POP login by user "n{number:07d}" at (h) {address(number)}'


def address(number: int) -> str:
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"


def addresses(stop: int) -> set[str]:
    """Who logs in by the lines up to `stop`."""
    return {address(number) for number in range(0, stop, 100)}


def row(number: int) -> bytes:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return f"{stamp} mx1 popper[42]: {message(number)}\n".encode()


def numbers(text: bytes) -> list[int]:
    """The numbers of the lines in a piece of the log."""
    return [int(number) for number in _NUMBER.findall(text)]


class Written(NamedTuple):
    """How many lines there are by now, and how many of them came a second."""

    stop: int
    rate: float


class Writer:
    """The program from `with` to its end, going on in `log` with the line `first`.

    It opens the log as rsyslogd does, for appending.
    """

    def __init__(self, log: Path, first: int) -> None:
        self._command = [sys.executable, "-m", __name__, str(log), str(first)]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._said() == "ready\n"
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        with self._process:
            pass

    def end(self) -> Written:
        """Have it end; where the machine is too slow for it, so is the test."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        stop, rate = self._said().split()
        written = Written(int(stop), float(rate))
        if written.rate < 0.9 * RATE:
            impossible(f"{RATE} lines a second", f"{written.rate:.0f} were written")
        return written

    def _said(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def main() -> None:
    log = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
    number = first = int(sys.argv[2])
    start = time.monotonic()
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], 0.2 / RATE)[0]:
        while number < first + RATE * (time.monotonic() - start):
            os.write(log, row(number))
            number += 1
    print(number, (number - first) / (time.monotonic() - start))


if __name__ == "__main__":
    main()
