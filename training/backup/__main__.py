"""`python -m training.backup make|verify|restore`: back up the whole state, check a backup, restore one."""

import argparse
import sys
import time

from training import storage
from training.backup.making import make_backup
from training.backup.manifest import MANIFEST, read_manifest
from training.backup.restoring import restore
from training.backup.verifying import problems
from training.contract.errors import ExitCode, InputError, StepError
from training.contract.names import did_you_mean
from training.settings import Settings, load_settings


def main(argv: list[str] | None = None) -> int:
    """Returns 0, 65 when a backup is not whole, or the exit code of the error."""
    parser = argparse.ArgumentParser(prog="training.backup")
    parser.add_argument("verb", choices=("make", "verify", "restore"))
    parser.add_argument("backup", nargs="?", default="", help="its folder or its name; empty: the newest")
    args = parser.parse_args(argv)
    started = time.monotonic()

    def report(part: str, count: int) -> None:
        print(f"  {time.monotonic() - started:7.1f} s  {part}: {count} files", flush=True)

    try:
        settings = load_settings()
        if args.verb == "make":
            uri = make_backup(settings, report)
            print("\n".join([*read_manifest(uri).absent, f"Backup {uri} after {time.monotonic() - started:.1f} s"]))
        else:
            uri = _find(args.backup, settings)
        if args.verb == "restore":
            made = restore(uri, settings, report)
            print(f"Restored {uri}, begun at {made.began:%Y-%m-%d %H:%M:%S} UTC, {time.monotonic() - started:.1f} s")
            print("Rows that `make forget` has removed since then are back: run it again for the same people.")
            return ExitCode.OK
        found = problems(uri)
    except StepError as error:
        print(f"✗ {args.verb} failed: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"✗ {args.verb} failed: {error}\n  → Check disk space and permissions, then retry.", file=sys.stderr)
        return ExitCode.TRANSIENT
    for problem in found:
        print(f"✗ {problem}", file=sys.stderr)
    if not found:
        print(f"{uri} is intact ({time.monotonic() - started:.1f} s)")
    return ExitCode.DATA_CONTRACT if found else ExitCode.OK


def _find(given: str, settings: Settings) -> str:
    if "/" in given:
        return given
    known = storage.folders(settings.backups)
    for name in [given] if given else reversed(known):
        if _is_finished(name, settings):
            return storage.join(settings.backups, name)
    finished = [name for name in known if _is_finished(name, settings)]
    there = (
        f"{did_you_mean(given, finished)}There are: {', '.join(finished)}." if finished else "Run `make backup` first."
    )
    raise InputError(f"There is no finished backup {given or 'at all'} in {settings.backups}", there)


def _is_finished(name: str, settings: Settings) -> bool:
    return storage.read(storage.join(settings.backups, name, MANIFEST)) is not None


if __name__ == "__main__":
    sys.exit(main())
