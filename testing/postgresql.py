"""A PostgreSQL server of its own."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testing.ports import free_port

_INSTALLED = Path("/usr/lib/postgresql")
#: The user that runs PostgreSQL when this runs as root, which PostgreSQL refuses.
_USER = "postgres"


def postgresql_programs() -> Path | None:
    """The folder of the newest PostgreSQL's programs; None when there is none."""
    found = sorted(_INSTALLED.glob("*/bin"), key=lambda path: int(path.parent.name))
    return found[-1] if found else None


@contextmanager
def postgresql(programs: Path) -> Iterator[str]:
    """A running server, which forgets everything at the end; yields its SQLAlchemy URL."""
    port, folder = free_port(), Path(tempfile.mkdtemp(prefix="perennial-postgresql-"))
    user = pwd.getpwnam(_USER) if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    os.chown(folder, user.pw_uid, user.pw_gid)

    def run(program: str, *arguments: str) -> None:
        subprocess.run([programs / program, *arguments], check=True, user=user.pw_uid, group=user.pw_gid, cwd=folder,
                       stdout=subprocess.DEVNULL)  # fmt: skip

    data, options = str(folder / "data"), f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c max_connections=200"
    try:
        run("initdb", "-D", data, "-U", "airflow", "-A", "trust")
        run("pg_ctl", "-D", data, "-l", str(folder / "log"), "-w", "-o", options, "start")
        try:
            run("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "airflow", "airflow")
            yield f"postgresql+psycopg2://airflow@127.0.0.1:{port}/airflow"
        finally:
            run("pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
