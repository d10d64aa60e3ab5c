"""Consistent copies of a database that others write to: SQLite by its backup API, PostgreSQL by pg_dump.

A database is named by its URL: `sqlite:///path` or `postgresql://user:password@host:port/name`. The password goes to
PostgreSQL's programs through their environment, because everybody can read arguments.
"""

import os
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from training import atomic
from training.contract.errors import ConfigError, DataContractError, TransientError

SQLITE = b"SQLite format 3\0"
#: Files beside an SQLite database, which belong to it.
BESIDE = ("-wal", "-shm", "-journal")
_WAL_MODE = 2


def is_sqlite(path: Path) -> bool:
    """Whether the file is an SQLite database."""
    with path.open("rb") as content:
        return content.read(len(SQLITE)) == SQLITE


def copy_sqlite(source: Path, target: Path) -> None:
    """Copy an SQLite database that others may write to. Writes no file of `source`. Raises sqlite3.Error."""
    with source.open("rb") as content:
        in_wal_mode = content.read(20)[18:19] == bytes([_WAL_MODE])
    # Nobody has a database in this mode open that has no log. SQLite would make files beside it.
    options = "&immutable=1" if in_wal_mode and not source.with_name(f"{source.name}-wal").exists() else ""
    with (
        closing(sqlite3.connect(f"file:{quote(str(source))}?mode=ro{options}", uri=True, timeout=60)) as live,
        closing(sqlite3.connect(target)) as copy,
    ):
        live.backup(copy)


def sqlite_path(url: str) -> Path | None:
    """The file of an SQLite database; None for a URL of PostgreSQL. Raises ConfigError for another database."""
    if url.startswith("sqlite:///"):
        return Path(url.removeprefix("sqlite:///"))
    if urlsplit(url).scheme.partition("+")[0] in ("postgresql", "postgres"):
        return None
    hint = "Write sqlite:///<path> or postgresql://<user>:<password>@<host>/<name>."
    raise ConfigError(f"Backups do not know the database {url.partition(':')[0]}://…", hint)


def dump(url: str, target: Path) -> bool:
    """Copy the database to the file `target`. False when it is an SQLite file that does not exist.

    Raises TransientError when the database does not answer, ConfigError when pg_dump is not installed.
    """
    source = sqlite_path(url)
    if source is not None and not source.exists():
        return False
    with atomic.replacing(target) as draft:
        if source is None:
            _run(["pg_dump", "--format=custom", "--no-owner", "--no-privileges", f"--file={draft}"], url)
        else:
            try:
                copy_sqlite(source, draft)
            except sqlite3.Error as error:
                raise TransientError(f"{source} could not be copied: {error}", hint="Retry.") from error
    return True


def load(copy: Path, url: str) -> None:
    """Put what `dump` wrote in the place of the database. Nothing else may use it. Raises as `dump`."""
    target = sqlite_path(url)
    if target is None:
        name = unquote(urlsplit(url).path.lstrip("/"))
        options = ["--clean", "--if-exists", "--no-owner", "--no-privileges", "--single-transaction"]
        _run(["pg_restore", *options, f"--dbname={name}", str(copy)], url)
        return
    for ending in BESIDE:  # The log of a database that was there before would be applied to this one.
        target.with_name(f"{target.name}{ending}").unlink(missing_ok=True)
    atomic.write(target, copy.read_bytes())


def problem_of(copy: Path) -> str | None:
    """What is wrong with a file that `dump` wrote; None when it can be read."""
    if not is_sqlite(copy):
        done = subprocess.run(["pg_restore", "--list", str(copy)], capture_output=True, text=True)
        return done.stderr.strip() or None if done.returncode else None
    try:
        with closing(_opened(copy)) as database:
            found = database.execute("PRAGMA integrity_check").fetchone()[0]
    except sqlite3.Error as error:
        return str(error)
    return None if found == "ok" else str(found)


def rows(copy: Path, table: str, *columns: str) -> list[tuple[str, ...]]:
    """These columns of `table` in a file that `dump` wrote, as texts. Raises DataContractError without such a table."""
    if is_sqlite(copy):
        try:
            with closing(_opened(copy)) as database:
                found = database.execute(f"SELECT {', '.join(columns)} FROM {table}").fetchall()
        except sqlite3.Error as error:
            raise DataContractError(f"{copy} has no table {table}: {error}", "Make another backup.") from error
        return [tuple("" if value is None else str(value) for value in row) for row in found]
    text = _run(["pg_restore", "--data-only", f"--table={table}", "--file=-", str(copy)])
    found, names = [], None
    for line in text.splitlines():
        if line.startswith("COPY "):
            names = [name.strip(' "') for name in line[line.index("(") + 1 : line.index(")")].split(",")]
        elif line == "\\.":
            names = None
        elif names:
            values = dict(zip(names, line.split("\t"), strict=True))
            found.append(tuple("" if values[name] == "\\N" else values[name] for name in columns))
    return found


def _opened(copy: Path) -> sqlite3.Connection:
    """An SQLite file that `dump` wrote, which nobody changes any more."""
    return sqlite3.connect(f"file:{quote(str(copy))}?mode=ro&immutable=1", uri=True)


def _run(command: list[str], url: str = "") -> str:
    parts, environment = urlsplit(url), dict(os.environ)
    query = dict(parse_qsl(parts.query))
    given = {
        "PGHOST": parts.hostname or query.get("host"),
        "PGPORT": str(parts.port) if parts.port else None,
        "PGUSER": parts.username and unquote(parts.username),
        "PGPASSWORD": parts.password and unquote(parts.password),
        "PGDATABASE": unquote(parts.path.lstrip("/")),
        "PGSSLMODE": query.get("sslmode"),
    }
    environment |= {name: value for name, value in given.items() if value}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    except FileNotFoundError as error:
        hint = "Install PostgreSQL's client programs, of the server's version or a newer one."
        raise ConfigError(f"{command[0]} is not installed here", hint) from error
    if done.returncode:
        raise TransientError(f"{command[0]} failed: {done.stderr.strip()}", hint="Check the database, then retry.")
    return done.stdout
