"""Where a study is kept: a journal file, SQLite, or any database that Optuna can reach."""

from __future__ import annotations

import fcntl
import re
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from prefixnas.base.errors import UserError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

JOURNAL = "study.journal"
_DATABASES = (".db", ".sqlite", ".sqlite3")
_SECONDS = 10
"""How long to wait for a database that doesn't answer."""


def storage_name(given: str | None, folder: Path) -> str:
    """Return what is to be opened: the path of a journal, or a URL.

    Args:
        given: A path, a URL, or None: a journal in `folder`.
        folder: The study's folder.
    """
    if given is None:
        return str(folder / JOURNAL)
    if "://" not in given and given.endswith(_DATABASES):
        return f"sqlite:///{given}"
    return given


def without_password(name: str) -> str:
    """Return the name of a storage as it may be shown and kept."""
    shown = re.sub(r"(://[^:/@]*):.*@", r"\1:***@", name)
    return re.sub(r"(?i)([?&][^=&]*(?:pass|pwd|secret|token)[^=&]*=)[^&]*", r"\1***", shown)


def has_study(given: str | None, folder: Path, study: str) -> bool:
    """Tell whether a storage holds a study of that name; nothing is made.

    Args:
        given: As in the experiment file.
        folder: The study's folder.
        study: Its name.

    Raises:
        UserError: The storage cannot be reached, or could not be written.
    """
    name = storage_name(given, folder).removeprefix("sqlite:///")
    file = Path(name)
    if "://" in name or file.is_file():
        studies = open_storage(given, folder).get_all_studies()
        return any(found.study_name == study for found in studies)
    if given is not None:
        try:
            with file.open("xb"):
                file.unlink()
        except FileExistsError:
            raise UserError(f"storage {given or repr(given)}: is not a file") from None
        except OSError as error:
            raise UserError(f"storage {file}: cannot be written: {error.strerror}") from error
    return False


def open_storage(given: str | None, folder: Path) -> BaseStorage:
    """Open the storage of a study; what does not exist yet is made.

    Args:
        given: As in the experiment file.
        folder: The study's folder.

    Raises:
        UserError: It cannot be reached, or what is there is something else.
    """
    name = storage_name(given, folder)
    return _database(name) if "://" in name else _journal(Path(name))


def _journal(path: Path) -> BaseStorage:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    class Lock(JournalFileOpenLock):
        """A lock that ends with its process, whatever ended that one."""

        _file: FileIO | None = None

        def acquire(self) -> bool:
            """Wait for the lock; cut off a last line that a killed process left half written."""
            self._file = FileIO(path, "r+")
            fcntl.flock(self._file, fcntl.LOCK_EX)
            content_end = _end_of_last_line(self._file)
            if content_end is not None:
                self._file.truncate(content_end)
            return True

        def release(self) -> None:
            """Let others write."""
            if self._file is not None:
                self._file.close()

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(str(path), Lock(str(path))))
    except OSError as error:
        raise UserError(f"storage {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"storage {path}: is not the journal of a study") from error


def _end_of_last_line(file: FileIO) -> int | None:
    """Return where the last complete line ends; None if nothing follows it."""
    size = file.seek(0, 2)
    if size == 0:
        return None
    file.seek(size - 1)
    if file.read(1) == b"\n":
        return None
    file.seek(max(0, size - 2**20))
    tail = file.read()
    return size - len(tail) + tail.rfind(b"\n") + 1


def _database(url: str) -> BaseStorage:
    import sqlalchemy.exc
    from optuna.exceptions import StorageInternalError
    from optuna.storages import RDBStorage

    shown = without_password(url)
    connect = {"sqlite": {"timeout": 60}}.get(url.partition(":")[0].partition("+")[0], {})
    if url.startswith(("postgresql", "mysql")):
        connect = {"connect_timeout": _SECONDS}
    try:
        return RDBStorage(url, engine_kwargs={"connect_args": connect}, skip_table_creation=False)
    except ImportError as error:
        package = getattr(_root(error), "name", None) or str(error).partition(".")[0]
        raise UserError(f"storage {shown}: a package is missing: {package}") from error
    except sqlalchemy.exc.NoSuchModuleError as error:
        kind = url.partition(":")[0]
        raise UserError(f"storage {shown}: no such kind of database: {kind!r}") from error
    except (
        sqlalchemy.exc.SQLAlchemyError,
        StorageInternalError,
        OSError,
        ValueError,
        RuntimeError,
    ) as error:
        cause = without_password(" ".join(str(_root(error)).split()))
        raise UserError(f"storage {shown}: cannot be reached: {cause}") from error


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return getattr(error, "orig", None) or error
