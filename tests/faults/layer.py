"""A file layer between a command and the disk, which counts operations and fails at one of them.

`python -m tests.faults.layer FAULT FOLDER LOG MODULE ARGUMENT...` runs a module on it. Every change
below `FOLDER` passes here: names that are opened to be written, made, renamed, cut or removed (an
audit hook sees them), and what is written and flushed (`open`, `os.write`, `os.fsync` and the two
writers of other languages, safetensors' and tokenizers', are replaced). Processes that the command
starts as forks have the layer, too, and count together with it.
"""

from __future__ import annotations

import builtins
import errno
import io
import mmap
import os
import runpy
import signal
import stat
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WRITE = "write"

_NAMED = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink")


@dataclass(frozen=True)
class Fault:
    """What goes wrong, and when.

    Attributes:
        kind: `none`; `kill`: SIGKILL in place of an operation; `torn`: after half of a write;
            `full`: no space left after so many bytes.
        at: The operation, from 1, or the bytes.
    """

    kind: str = "none"
    at: int = 0

    def __str__(self) -> str:
        return f"{self.kind}:{self.at}"

    @classmethod
    def parse(cls, text: str) -> Fault:
        kind, _, at = text.partition(":")
        return cls(kind, int(at))


class Layer:
    """The operations so far, of all processes, and the fault that is to come.

    Args:
        fault: What goes wrong.
        folder: Below it.
        log: Gets a line per operation: its kind, its name and what had been written before.
    """

    def __init__(self, fault: Fault, folder: Path, log: Path) -> None:
        self.fault, self.folder = fault, str(folder.resolve()) + os.sep
        self._shared = mmap.mmap(-1, 16)  # operations and bytes; forks share it
        self._log, self._busy = log, False
        self._genuine_open = io.open

    def watches(self, name: Any, folder: int = -1) -> bool:
        """Tell whether a name or an open file lies below the folder."""
        path = self._path(name, folder)
        return path.startswith(self.folder)

    def operation(self, kind: str, name: Any) -> None:
        """Count an operation that is about to be done; end the process if it is its turn."""
        count, written = self._counts()
        self._set(count + 1, written)
        with self._genuine_open(self._log, "a", encoding="utf-8") as log:
            log.write(f"{kind} {written} {self._path(name)}\n")
        if self.fault.kind == "kill" and self.fault.at == count + 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.full and kind in ("open", "os.mkdir"):
            raise _no_space(self._path(name))

    def write(self, name: Any, data: Any, genuine: Callable[[Any], Any]) -> Any:
        """Write, or a part of it, or nothing."""
        view = memoryview(data).cast("B")
        count, written = self._counts()
        if self.fault.kind == "torn" and self.fault.at == count + 1:
            genuine(view[: len(view) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        self.operation(WRITE, name)
        if self.fault.kind == "full":
            view = view[: max(0, self.fault.at - written)]
            if not view and len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = genuine(view)
        count, written = self._counts()
        self._set(count, written + len(view))
        return done

    @property
    def full(self) -> bool:
        """Whether there is no room."""
        return self.fault.kind == "full" and self._counts()[1] >= self.fault.at

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """See what Python is about to do."""
        if self._busy:
            return
        self._busy = True
        try:
            self._see(event, arguments)
        finally:
            self._busy = False

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            name, _, flags = arguments
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            if not isinstance(name, int) and writes and self.watches(name):
                self.operation("open", name)
        elif event in _NAMED:
            name, folder = arguments[0], arguments[-1]
            if self.watches(name, folder if isinstance(folder, int) else -1):
                self.operation(event, name)

    def _path(self, name: Any, folder: int = -1) -> str:
        try:
            if isinstance(name, int):
                if not stat.S_ISREG(os.fstat(name).st_mode):
                    return ""
                return os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115
            text = os.fsdecode(name)
            if os.path.isabs(text):  # noqa: PTH117
                return text
            above = os.readlink(f"/proc/self/fd/{folder}") if folder >= 0 else os.getcwd()  # noqa: PTH109, PTH115
            return os.path.join(above, text)  # noqa: PTH118
        except (OSError, TypeError):
            return ""

    def _counts(self) -> tuple[int, int]:
        count, written = struct.unpack("qq", self._shared[:16])
        return count, written

    def _set(self, count: int, written: int) -> None:
        self._shared[:16] = struct.pack("qq", count, written)


def _no_space(path: str) -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


def install(layer: Layer) -> None:
    """Put the layer under this process for good."""
    genuine_open, genuine_write, genuine_fsync = io.open, os.write, os.fsync

    class Watched(io.FileIO):
        def write(self, data: Any) -> Any:
            return layer.write(self.name, data, super().write)

    def watched_open(file: Any, mode: str = "r", *given: Any, **options: Any) -> Any:
        writes = set(mode) & set("wax+")
        if isinstance(file, int) or not writes or not layer.watches(file):
            return genuine_open(file, mode, *given, **options)
        texts = dict(zip(("buffering", "encoding", "errors", "newline"), given, strict=False))
        texts |= options
        raw = Watched(file, mode.replace("b", "").replace("t", ""))
        buffered: Any = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return buffered
        names = ("encoding", "errors", "newline")
        return io.TextIOWrapper(buffered, **{name: texts.get(name) for name in names})

    def watched_write(descriptor: int, data: Any) -> int:
        if not layer.watches(descriptor):
            return genuine_write(descriptor, data)
        written: int = layer.write(
            descriptor, data, lambda part: genuine_write(descriptor, bytes(part))
        )
        return written

    def watched_fsync(descriptor: Any) -> None:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        if layer.watches(number):
            layer.operation("fsync", number)
        genuine_fsync(number)

    io.open = builtins.open = watched_open  # type: ignore[assignment]
    os.write, os.fsync = watched_write, watched_fsync
    _watch_safetensors(watched_open)
    _watch_tokenizers(layer)
    sys.addaudithook(layer.audit)


def _watch_safetensors(watched_open: Callable[..., Any]) -> None:
    """Have its files written by Python; its error is what the library makes of Python's."""
    import safetensors
    import safetensors.torch

    def serialize_file(tensors: Any, name: Any, metadata: Any = None) -> None:
        data = safetensors.serialize(tensors, metadata)
        try:
            with watched_open(name, "wb") as file:
                file.write(data)
        except OSError as error:
            text = f"I/O error: {error.strerror} (os error {error.errno})"
            raise safetensors.SafetensorError(f"Error while serializing: {text}") from None

    safetensors.torch.serialize_file = serialize_file


def _watch_tokenizers(layer: Layer) -> None:
    """Count what Rust writes of a tokenizer as one operation, and fail as Rust does."""
    from transformers import PreTrainedTokenizerFast

    genuine = PreTrainedTokenizerFast._save_pretrained

    def save(self: Any, *given: Any, **options: Any) -> Any:
        folder = given[0] if given else options["save_directory"]
        path = str(Path(folder, "tokenizer.json").resolve())
        if layer.watches(path):
            layer.operation(WRITE, path)
            if layer.full:
                raise Exception("No space left on device (os error 28)")
        return genuine(self, *given, **options)

    PreTrainedTokenizerFast._save_pretrained = save


def main() -> None:
    """Run a module on the layer."""
    fault, folder, log, module, *arguments = sys.argv[1:]
    install(Layer(Fault.parse(fault), Path(folder), Path(log)))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
