"""The file in which a cache lies: an SQLite database in WAL mode.

One database for a project, because a run reads it as a whole and writes little of it. SQLite keeps it whole when a run
is killed while it writes and when several run at once; a file that is replaced atomically would do so too, but it
would have to be read and written as a whole for one changed file, and of two runs one would lose what it found.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = ".memlint_cache"
_DATABASE = "results.sqlite"
# Raised whenever the tables, or what is written in them, mean something else.
_FORM = 6
# Another run writes for milliseconds; whoever waits longer goes without.
_WAIT_SECONDS = 2.0
_SNAPSHOTS_KEPT = 64
_RUNS_KEPT = 8

_SCHEMA = """
CREATE TABLE about (form INTEGER, tool TEXT, plugins TEXT);
CREATE TABLE rules (rules TEXT, sum INTEGER);
CREATE TABLE projects (root TEXT PRIMARY KEY, statuses TEXT, sum INTEGER);
CREATE TABLE snapshots (number INTEGER PRIMARY KEY, root TEXT, id TEXT, content BLOB, UNIQUE (root, id));
CREATE TABLE words (digest TEXT PRIMARY KEY, words BLOB) WITHOUT ROWID;
CREATE TABLE results (root TEXT, file TEXT, demand TEXT, content TEXT, snapshot TEXT, is_certain INTEGER, result TEXT,
                      sum INTEGER, PRIMARY KEY (root, file, demand)) WITHOUT ROWID;
CREATE TABLE runs (number INTEGER PRIMARY KEY, root TEXT, run TEXT, results TEXT, sum INTEGER, UNIQUE (root, run));
CREATE TABLE grounds (root TEXT, file TEXT, demand TEXT, grounds TEXT, asked TEXT, sum INTEGER,
                      PRIMARY KEY (root, file, demand));
"""

_TAG_FILE = "CACHEDIR.TAG"
_TAG = """Signature: 8a477f597d28d172789f06886806bc55
# This file is a cache directory tag created by memlint (https://bford.info/cachedir/).
"""


class Unusable(Exception):  # noqa: N818 - says what it is
    """The store cannot be read or written; `str` says why."""


class Damaged(Unusable):
    """What is in the store is no store, or not whole."""


class KnownRule(NamedTuple):
    """What a run needs to know of a rule that it may not have to import."""

    code: str
    name: str
    family: str
    on_by_default: bool
    module: str
    triggers: Sequence[str]


class Stored(NamedTuple):
    """A row of the results. `demand` is a digest of what was wanted of the file; `is_certain`: nothing outside of the
    snapshot was looked at.
    """

    file: str
    demand: str
    content: str
    snapshot: str
    is_certain: bool
    result: str


class Store:
    """The tables, as they are. Every method raises Unusable."""

    def __init__(self, folder: Path, tool: str, plugins: Callable[[], str]) -> None:
        """Open the store in a folder, which is made. What another version of the tool has left is thrown away.

        `tool` and `plugins` are digests of the tool and of its plugins. Where no plugin is installed that is empty, and
        not asked for again while the tool is the same.
        """
        self._folder = folder
        self._tool = tool
        self._plugins = plugins
        with _translated():
            folder.mkdir(exist_ok=True)
            self._database = self._connected()

    def _connected(self) -> sqlite3.Connection:
        path = self._folder / _DATABASE
        is_new = not path.exists()
        database = sqlite3.connect(path, timeout=_WAIT_SECONDS, isolation_level=None)
        try:
            if is_new:
                _mark(self._folder)
                database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            if not self._is_of_this_tool(database):
                self._begin_anew(database)
        except BaseException:
            database.close()
            raise
        return database

    def _is_of_this_tool(self, database: sqlite3.Connection) -> bool:
        tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if not tables or database.execute("SELECT form, tool FROM about").fetchall() != [(_FORM, self._tool)]:
            return False
        (plugins,) = database.execute("SELECT plugins FROM about").fetchone()
        return not plugins or plugins == self._plugins()

    def _begin_anew(self, database: sqlite3.Connection) -> None:
        database.execute("BEGIN IMMEDIATE")
        if not self._is_of_this_tool(database):  # no other run was faster
            for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                database.execute(f"DROP TABLE {name}")
            for statement in _SCHEMA.split(";"):
                database.execute(statement)
            database.execute("INSERT INTO about VALUES (?, ?, ?)", (_FORM, self._tool, self._plugins()))
        database.execute("COMMIT")

    def close(self) -> None:
        with suppress(sqlite3.Error):
            self._database.close()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """All that is written within the block is written, or nothing."""
        with _translated():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    # --- rules ---

    def rules(self) -> str:
        """All rules; empty where no run has said it."""
        found = self._all("SELECT rules, sum FROM rules")
        return _whole(*found[0]) if found else ""

    def put_rules(self, rules: str) -> None:
        self._database.execute("INSERT INTO rules VALUES (?, ?)", (rules, _sum(rules)))

    # --- projects ---

    def statuses(self, root: str) -> str:
        found = self._all("SELECT statuses, sum FROM projects WHERE root = ?", root)
        return _whole(*found[0]) if found else ""

    def put_statuses(self, root: str, statuses: str) -> None:
        self._database.execute("INSERT OR REPLACE INTO projects VALUES (?, ?, ?)", (root, statuses, _sum(statuses)))

    def snapshot(self, root: str, id_: str) -> bytes | None:
        found = self._all("SELECT content FROM snapshots WHERE root = ? AND id = ?", root, id_)
        return found[0][0] if found else None

    def put_snapshot(self, root: str, id_: str, content: bytes) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO snapshots (root, id, content) VALUES (?, ?, ?)", (root, id_, content)
        )

    def forget_snapshots(self, root: str) -> None:
        """Those in which no result holds, and the oldest where there are many: their results are asked anew."""
        self._database.execute(
            "DELETE FROM snapshots WHERE root = :root AND (id NOT IN (SELECT snapshot FROM results WHERE root = :root)"
            " OR number NOT IN (SELECT number FROM snapshots WHERE root = :root ORDER BY number DESC LIMIT :kept))",
            {"root": root, "kept": _SNAPSHOTS_KEPT},
        )

    def words(self, digest: str) -> bytes | None:
        found = self._all("SELECT words FROM words WHERE digest = ?", digest)
        return found[0][0] if found else None

    def put_words(self, words: Iterable[tuple[str, bytes]]) -> None:
        self._database.executemany("INSERT OR IGNORE INTO words VALUES (?, ?)", words)

    def keep_words_of(self, digests: Iterable[str]) -> None:
        """Once most are of texts that are gone, forget those."""
        current = set(digests)
        if self._all("SELECT count(*) FROM words")[0][0] < 4 * len(current) + 1000:
            return
        gone = [(digest,) for (digest,) in self._all("SELECT digest FROM words") if digest not in current]
        self._database.executemany("DELETE FROM words WHERE digest = ?", gone)

    # --- results ---

    def results(self, root: str) -> Iterator[Stored]:
        """Those of all files."""
        return self._results(root, "")

    def results_of(self, root: str, file: str) -> Iterator[Stored]:
        return self._results(root, "AND file = ?", file)

    def _results(self, root: str, condition: str, *values: str) -> Iterator[Stored]:
        columns = "file, demand, content, snapshot, is_certain, result, sum"
        for file, demand, content, snapshot, is_certain, result, total in self._all(
            f"SELECT {columns} FROM results WHERE root = ? {condition}", root, *values
        ):
            stored = Stored(file, demand, content, snapshot, bool(is_certain), result)
            if total != _sum_of(root, stored):
                raise Damaged(_NOT_WHOLE)
            yield stored

    def files_with_results(self, root: str) -> list[str]:
        return [file for (file,) in self._all("SELECT DISTINCT file FROM results WHERE root = ?", root)]

    def grounds(self, root: str, file: str, demand: str) -> tuple[str, str] | None:
        """What a result rests on, and the questions that it asked with their answers, as they were put."""
        found: list[tuple[str, str, int]] = self._all(
            "SELECT grounds, asked, sum FROM grounds WHERE root = ? AND file = ? AND demand = ?", root, file, demand
        )
        if not found:
            return None
        grounds, asked, total = found[0]
        if total != _sum(root, file, demand, grounds, asked):
            raise Damaged(_NOT_WHOLE)
        return grounds, asked

    def put_result(self, root: str, stored: Stored, grounds: str, asked: str) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (root, *stored, _sum_of(root, stored))
        )
        key = (root, stored.file, stored.demand)
        self._database.execute(
            "INSERT OR REPLACE INTO grounds VALUES (?, ?, ?, ?, ?, ?)",
            (*key, grounds, asked, _sum(*key, grounds, asked)),
        )

    def run(self, root: str, run: str) -> str | None:
        """What a run found, all together; `run` is a digest of all that it looked at and what was wanted of it."""
        found = self._all("SELECT results, sum FROM runs WHERE root = ? AND run = ?", root, run)
        return _whole(*found[0]) if found else None

    def put_run(self, root: str, run: str, results: str) -> None:
        """The latest ones are kept."""
        self._database.execute(
            "INSERT OR REPLACE INTO runs (root, run, results, sum) VALUES (?, ?, ?, ?)",
            (root, run, results, _sum(results)),
        )
        self._database.execute(
            "DELETE FROM runs WHERE root = :root"
            " AND number NOT IN (SELECT number FROM runs WHERE root = :root ORDER BY number DESC LIMIT :kept)",
            {"root": root, "kept": _RUNS_KEPT},
        )

    def put_snapshot_of(self, root: str, snapshot: str, keys: Iterable[tuple[str, str]]) -> None:
        """These results hold in another snapshot too."""
        self._database.executemany(
            "UPDATE results SET snapshot = ? WHERE root = ? AND file = ? AND demand = ?",
            ((snapshot, root, file, demand) for file, demand in keys),
        )

    def forget(self, root: str, files: Iterable[str]) -> None:
        """Drop the results of files that are gone."""
        for table in ("results", "grounds"):
            self._database.executemany(
                f"DELETE FROM {table} WHERE root = ? AND file = ?", ((root, file) for file in files)
            )

    def _all(self, query: str, *values: object) -> list[Any]:
        with _translated():
            return self._database.execute(query, values).fetchall()


def remove(folder: Path) -> bool:
    """Remove a store with its folder; False where there is none. Raises OSError."""
    tag = folder / _TAG_FILE
    if not (tag.is_file() and tag.read_text(encoding="utf-8") == _TAG):
        return False  # somebody else's
    import shutil  # of `memlint clean` alone

    shutil.rmtree(folder)
    return True


def remove_database(folder: Path) -> None:
    """Raises OSError."""
    for path in folder.glob(f"{_DATABASE}*"):
        path.unlink(missing_ok=True)


# SQLite notices damage to its own structure alone. (What is packed has a sum within.)
_NOT_WHOLE = "a row is not as it was written"


def _sum(*texts: str) -> int:
    return zlib.crc32("\0".join(texts).encode(errors="surrogatepass"))


def _sum_of(root: str, stored: Stored) -> int:
    """Of all but the snapshot, which is changed later: by itself, a wrong one proves nothing."""
    return _sum(root, stored.file, stored.demand, stored.content, str(stored.is_certain), stored.result)


def _whole(text: str, total: int) -> str:
    if total != _sum(text):
        raise Damaged(_NOT_WHOLE)
    return text


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise Unusable(str(error)) from None  # locked, or not writable
    except sqlite3.Error as error:
        raise Damaged(str(error)) from None
    except OSError as error:
        raise Unusable(error.strerror or str(error)) from None


def _mark(folder: Path) -> None:
    """Version control leaves the folder alone, and so do backups."""
    (folder / ".gitignore").write_text("# Made by memlint.\n*\n", encoding="utf-8")
    (folder / _TAG_FILE).write_text(_TAG, encoding="utf-8")
