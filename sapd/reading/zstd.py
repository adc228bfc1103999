"""Files that zstd(1) compressed: by Python's own module (3.14 has one), or by the program."""

import io
import os
from collections.abc import Iterator
from contextlib import ExitStack
from importlib import import_module
from typing import IO, Any

from sapd import child

_BUFFER = 128 * 1024  # bytes
_SILENT = 10.0  # seconds without a byte, after which zstd hangs


def opened(packed: IO[bytes]) -> tuple[io.BufferedIOBase, type[Exception]] | None:
    """The unpacked file, and what reading it raises where it is damaged; None if there is no way.

    It is read from its beginning, and can be read again after `seek(0)`.
    """
    try:
        module = import_module("compression.zstd")
    except ImportError:
        paths = [os.path.join(folder, "zstd") for folder in os.get_exec_path()]
        program = next((path for path in paths if os.access(path, os.X_OK)), None)
        if program is None:
            return None
        return io.BufferedReader(_Unpacked(packed, program), _BUFFER), OSError
    return module.ZstdFile(packed), module.ZstdError


class _Unpacked(io.RawIOBase):
    """What zstd writes; it ends where the file is damaged."""

    def __init__(self, packed: IO[bytes], program: str) -> None:
        super().__init__()
        self._packed = packed
        self._command = [program, "-dcq"]
        self._running = ExitStack()
        self._blocks: Iterator[bytes] | None = None
        self._rest = b""
        self._offset = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._offset

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go back to the beginning, wherever else one wants to go."""
        self._running.close()
        self._blocks, self._rest, self._offset = None, b"", 0
        return 0

    def readinto(self, buffer: Any) -> int:
        if self._blocks is None:
            self._packed.seek(0)
            running = child.Running(self._command, self._packed.fileno())
            self._blocks = self._running.enter_context(running).blocks(_SILENT)
        if not self._rest:
            self._rest = next(self._blocks, b"")
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        self._offset += size
        return size

    def close(self) -> None:
        self._running.close()
        super().close()
