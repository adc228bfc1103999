"""Fuzz one of the targets: python -m tests.faults.fuzz NAME [LIBFUZZER'S OPTIONS AND FOLDERS].

atheris looks for bytes that reach code not seen before. `-help=1` tells the options; without
`-runs=N` or `-max_total_time=SECONDS` it goes on until it finds something. In a folder that is
named it keeps what it finds interesting, and starts from there the next time.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["sapd", "tomllib"]):
    from tests.faults.targets import TARGETS


def main(name: str, *options: str) -> None:
    """Fuzz the target; never returns."""
    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as folder:
        seeds, words = Path(folder, "seeds"), Path(folder, "words")
        seeds.mkdir()
        for number, seed in enumerate(target.seeds()):
            (seeds / str(number)).write_bytes(seed)
        words.write_text("".join(f'"{escaped(word)}"\n' for word in ["\0", *target.words()]))
        atheris.Setup([sys.argv[0], f"-dict={words}", *options, str(seeds)], target.run)
        atheris.Fuzz()


def escaped(word: str) -> str:
    """As libFuzzer reads words."""
    return "".join(f"\\x{byte:02x}" for byte in word.encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
