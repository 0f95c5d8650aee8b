"""What the command lines share: a parser with one-line errors, and the way to a command."""

from __future__ import annotations

import _thread
import argparse
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from typing import Any, NoReturn

from prefixnas.base.errors import RunLost, UserError, brief, nearest, one_line, unknown
from prefixnas.base.extras import missing

MOST = 10**9
"""The largest number that a flag of a command's own takes."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, with the nearest flag."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage."""
        if message.startswith("unrecognized arguments: "):
            flag = message.removeprefix("unrecognized arguments: ").split()[0]
            known = [name for action in self._actions for name in action.option_strings]
            raise UserError(f"unknown argument {flag!r}{nearest(flag, known)}")
        if choice := re.match(r"argument COMMAND: invalid choice: '(.*?)'", message):
            commands = next(a.choices for a in self._actions if a.metavar == "COMMAND")
            raise unknown("command", choice[1], commands or ())
        raise UserError(message)


def guarded(command: Callable[[Sequence[str]], int], argv: Sequence[str] | None) -> int:
    """Run a command; what a user can put right is one line on stderr and exit code 2."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return command(arguments)
    except UserError as error:
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        return 2
    except RunLost as error:
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        lacking = missing(error)
        if lacking is None:
            raise
        print(f"error: {one_line(str(lacking))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        return _interrupted(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a full disk, a folder without the right to write
        place = f"{error.filename}: " if error.filename else ""
        print(f"error: {one_line(f'{place}{error.strerror or error}')}", file=sys.stderr)
        return 2


class Terminated(KeyboardInterrupt):
    """SIGTERM: what Ctrl-C ends, it ends in the same way."""


def program(command: Callable[[Sequence[str]], int], argv: Sequence[str] | None) -> int:
    """Run a command that a user has started; SIGTERM ends it as Ctrl-C does.

    Returns:
        The exit code: 130 after Ctrl-C, 143 after SIGTERM.
    """
    with _signals() as received:
        try:
            code = guarded(command, argv)
        except BaseException as error:
            if not received:
                raise
            # A library that was just being imported made another error of the interruption.
            code = _interrupted(error if isinstance(error, Terminated) else received[0]())
        return code if not received else _CODES[received[0]]


def _interrupted(error: BaseException) -> int:
    how = "terminated" if isinstance(error, Terminated) else "interrupted"
    print(f"{how}; the same command goes on, with --resume if it had begun", file=sys.stderr)
    return _CODES[Terminated if isinstance(error, Terminated) else KeyboardInterrupt]


_CODES: Mapping[type[BaseException], int] = {KeyboardInterrupt: 130, Terminated: 143}

_AGAIN = 0.5
"""Seconds after which a signal comes again whose exception went lost."""


@contextmanager
def _signals() -> Iterator[list[type[BaseException]]]:
    """Raise `KeyboardInterrupt` or `Terminated` at a signal, and note it in what is yielded.

    Libraries and the interpreter drop what is raised inside some of their callbacks and imports, so
    it is raised again until it is handled somewhere or has ended the block. Handlers that others
    have set stay, and so do those of a process of several that a launcher ends.
    """
    received: list[type[BaseException]] = []
    over = threading.Event()
    reminded = False
    dropped = sys.unraisablehook

    def end(number: int, _frame: object) -> None:
        nonlocal reminded
        again, reminded = reminded, False
        if over.is_set() or (again and _under_way(sys.exception())):
            return
        received.append(Terminated if number == signal.SIGTERM else KeyboardInterrupt)
        if len(received) == 1:
            threading.Thread(target=remind, args=[signal.Signals(number)], daemon=True).start()
        raise received[-1]

    def remind(number: signal.Signals) -> None:
        nonlocal reminded
        while not over.wait(_AGAIN):
            reminded = True
            _thread.interrupt_main(number)

    def drop(lost: sys.UnraisableHookArgs) -> None:
        if lost.exc_type not in received:
            dropped(lost)

    usual: dict[int, Any] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
    }
    ours = [number for number, usually in usual.items() if signal.getsignal(number) == usually]
    if "RANK" in os.environ or threading.current_thread() is not threading.main_thread():
        ours = []
    for number in ours:
        signal.signal(number, end)
    if ours:
        sys.unraisablehook = drop
    try:
        yield received
    finally:
        over.set()
        if ours:
            sys.unraisablehook = dropped
        for number in ours:
            signal.signal(number, usual[number])


def _under_way(error: BaseException | None) -> bool:
    """Tell whether an interruption is being handled: in an `except`, a `finally`, a `with`."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def run_command(
    prog: str, description: str, commands: Mapping[str, str], argv: Sequence[str]
) -> int:
    """Run the command that `argv` begins with; print the help or the version if asked for it.

    Args:
        prog: Name of the program.
        description: What it is.
        commands: Per command the module that holds it: a line `HELP`; `parser(prog)`, which
            returns a parser of all that it takes; and `main(argv, prog)`, which takes the arguments
            after the command and returns the exit code.
        argv: All arguments.

    Raises:
        UserError: No command, an unknown one, or a flag in front of it.
    """
    if argv and argv[0] in commands:
        code: int = import_module(commands[argv[0]]).main(argv[1:], f"{prog} {argv[0]}")
        return code
    if argv and argv[0].startswith("-") and argv[0] not in ("-h", "--help", "--version"):
        raise UserError(f"unknown argument {argv[0]!r}: flags come after the command")
    parser = Parser(prog=prog, description=description)
    shown = f"{prog} {version('prefixnas')}"
    parser.add_argument("--version", action="version", version=shown)
    offered = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in commands.items():
        offered.add_parser(name, help=import_module(module).HELP, add_help=False)
    parser.parse_args(argv)
    raise AssertionError("the parser took a command that does not exist")


def positive(text: str) -> int:
    """Parse a flag that is a whole number of at least 1, and none of thousands of digits."""
    return _whole(text, 1)


def none_or_more(text: str) -> int:
    """Parse a flag that is a whole number of at least 0, and none of thousands of digits."""
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if not least <= number <= MOST:
        raise argparse.ArgumentTypeError(
            f"must be a whole number of at least {least} and at most {MOST:,}, not {brief(text)}"
        )
    return number
