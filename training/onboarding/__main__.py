"""`python -m training.onboarding new-source | new-model | remove-source | remove-model`: see `--help`."""

import argparse
import json
import shlex
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from training.contract.errors import ExitCode, StepError
from training.onboarding.feeds import Feed
from training.onboarding.new_model import TASKS, ModelWishes, new_model
from training.onboarding.new_source import SourceWishes, new_source
from training.onboarding.removal import Removal, model_removal, source_removal
from training.settings import Settings, load_settings


def main(argv: list[str] | None = None) -> int:
    """Returns 0, or the exit code of the error."""
    args = _parser().parse_args(argv)
    try:
        settings = load_settings()
        _VERBS[args.verb](args, settings)
    except StepError as error:
        print(f"✗ {error}", file=sys.stderr)
        return error.exit_code
    return ExitCode.OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="training.onboarding")
    verbs = parser.add_subparsers(dest="verb", required=True)
    source = verbs.add_parser("new-source", help="write the spec of a source from a sample")
    source.add_argument("--name", required=True)
    source.add_argument("--data", required=True, type=Path, help="a Parquet or CSV file of events, or a folder of them")
    source.add_argument("--labels", default="", help="columns of the events, or a file of labels")
    source.add_argument("--time", default="", help="the column with the time of an event")
    source.add_argument("--labels-time", default="", help="the column with the time when a label was known")
    source.add_argument("--id", default="", help="the column that identifies an event; `new`: make one")
    source.add_argument(
        "--entity", dest="entities", default="", help="columns of entities, separated by commas; `none`"
    )
    model = verbs.add_parser("new-model", help="write the spec of a model of a source")
    model.add_argument("--name", required=True)
    model.add_argument("--source", required=True)
    model.add_argument("--label", default="", help="one of the source's labels")
    model.add_argument("--task", default="", help=", ".join(TASKS))
    model.add_argument("--data", type=Path, help="as for new-source (default: what has landed)")
    model.add_argument("--labels", type=Path, help="a file of labels")
    for kind in ("source", "model"):
        removal = verbs.add_parser(f"remove-{kind}", help=f"show what goes when a {kind} is removed, and what stays")
        removal.add_argument("--name", required=True)
        removal.add_argument("--apply", action="store_true", help="remove it")
    for each in (source, model):
        each.add_argument("--positive", default="", help="the text of a label that becomes 1")
        each.add_argument("--owner", default="")
    return parser


def _of(kind: type[SourceWishes] | type[ModelWishes], args: argparse.Namespace) -> dict[str, Any]:
    """The arguments that `kind` has fields for."""
    return {field.name: getattr(args, field.name) for field in fields(kind)}


def _new_source(args: argparse.Namespace, settings: Settings) -> None:
    made = new_source(SourceWishes(**_of(SourceWishes, args)), settings)
    print(f"✓ {made.path}")
    for feed in made.feeds:
        _describe(feed)
    labels = f" LABELS={shlex.quote(args.labels)}" if len(made.feeds) > 1 else ""
    positive = f" POSITIVE={shlex.quote(args.positive)}" if args.positive else ""
    files = f"DATA={shlex.quote(str(args.data))}{labels}{positive}"
    print("\nRead the file and correct what you know better. Then:")
    print(f"  make check SOURCE={args.name}")
    for label in made.label_names:
        print(f"  make new-model NAME=<model> SOURCE={args.name} LABEL={label} {files}")
    print(f"  make land NAME={args.name} {files}")


def _describe(feed: Feed) -> None:
    time, key = feed.time, feed.id
    print(f"  {feed.name}: {feed.sample.table.num_rows:,} rows, {len(feed.columns) - len(feed.left_out)} columns")
    print(f"    time {time.column}{f' ({time.why})' if time.why else ''}")
    print(f"    id {key.column}{f' ({key.why})' if key.why else ''}")
    for name, original in feed.sample.renamed.items():
        print(f"    {original!r} is called {name}: deliver it under this name (`make land` renames it)")
    for each in feed.left_out:
        print(f"    left out: {each.original} {each.left_out}")
    for day in feed.incomplete:
        print(f"    the sample lacks a part of {day}: `make land` omits this day")


def _new_model(args: argparse.Namespace, settings: Settings) -> None:
    made = new_model(ModelWishes(**_of(ModelWishes, args)), settings)
    print(f"✓ {made.path}: {made.task}")
    if made.figures is None:
        print("  No rows were given and none have landed: windows and limits are mere defaults.")
    print("\nRead the file and correct what you know better. Then:")
    print(f"  make check MODEL={args.name}")
    if made.example:
        print("\nA request, once the model has a champion:")
        body = shlex.quote(json.dumps(made.example, ensure_ascii=False))
        url = f"{settings.replicas()[0]}/models/{args.name}/predict"
        print(f"  curl -s {url} -H 'content-type: application/json' -d {body}")


def _remove_source(args: argparse.Namespace, settings: Settings) -> None:
    _remove(source_removal(args.name, settings), args)


def _remove_model(args: argparse.Namespace, settings: Settings) -> None:
    _remove(model_removal(args.name, settings), args)


def _remove(removal: Removal, args: argparse.Namespace) -> None:
    for change in removal.changes:
        print(f"- {change.what}", flush=True)
        if args.apply:
            change.do()
    print("\nThis stays:")
    for each in removal.stays:
        print(f"- {each}.")
    if not args.apply:
        print(f"\nNothing was changed. `make {args.verb} NAME={args.name} ARGS=--apply` removes it.")


_VERBS = {
    "new-source": _new_source,
    "new-model": _new_model,
    "remove-source": _remove_source,
    "remove-model": _remove_model,
}


if __name__ == "__main__":
    sys.exit(main())
