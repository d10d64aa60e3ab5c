"""`python -m local <verb>`: the commands that the Makefile runs."""

import argparse
import sys
from xmlrpc.client import Fault

from local.place import Place
from local.plans import DEFAULT, plan_names, plan_of
from local.rerun import Wanted, rerun
from local.stack import Stack
from local.verbs import VERBS, backup, evidence, forget, ledger_verify, migrate, onboard, restore_online, sign, step
from training.contract.errors import StepError


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code. Expected errors are printed as one sentence, without a traceback."""
    parser = argparse.ArgumentParser(prog="python -m local", description="The loop on one machine.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    demo = verbs.add_parser("demo", help="start the stack and run the demo of a model")
    demo.add_argument("--model", default=DEFAULT, help=f"{', '.join(plan_names())} (default: {DEFAULT})")
    demo.add_argument("--exit", action="store_true", help="stop the stack at the end; 0 if nothing is missing")
    for verb, (_, text) in VERBS.items():
        verbs.add_parser(verb, help=text)
    one = verbs.add_parser("step", help="run one step with this stack's settings")
    one.add_argument("rest", nargs=argparse.REMAINDER)
    files = verbs.add_parser("onboard", help="write or remove the files of a source or a model")
    files.add_argument("rest", nargs=argparse.REMAINDER)
    again = verbs.add_parser("rerun", help="run the step of a failed task again, on a copy of the state")
    again.add_argument("--task", default="", help="<dag> <task> [<run id>] [<map index>]: its newest failed try")
    again.add_argument("--log", default="", help="the log of a task")
    again.add_argument("--step", default="", help="a step, with --inputs")
    again.add_argument("--inputs", default="", help="JSON, or @file")
    again.add_argument("--copy", default="", help="the folder of the copy (default: a new one beside the state)")
    again.add_argument("--in-debugger", action="store_true", help="under pdb")
    whole = verbs.add_parser("ledger-verify", help="check that no ledger entry was altered or removed")
    whole.add_argument("models", nargs="*")
    page = verbs.add_parser("evidence", help="fetch the evidence page and the model card of a version")
    page.add_argument("model")
    page.add_argument("version", nargs="?", default="", help="its number; empty: the champion")
    person = verbs.add_parser("forget", help="remove the rows of a person")
    person.add_argument("source")
    person.add_argument("entity", help="<column>=<value>")
    person.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    signed = verbs.add_parser("sign", help="sign versions that were registered before there was a key")
    signed.add_argument("model")
    signed.add_argument("versions", nargs="*", help="their numbers; empty: those with an alias")
    online = verbs.add_parser("restore-online", help="fill the online store again from the lake")
    online.add_argument("sources", nargs="*")
    older = verbs.add_parser("migrate", help="bring specs and state of the layout before to that of this version")
    older.add_argument("--apply", action="store_true", help="make the changes; without it they are only shown")
    kept = verbs.add_parser("backup", help="make, check or restore a backup of the state")
    kept.add_argument("what", choices=("make", "verify", "restore"))
    kept.add_argument("name", nargs="?", default="", help="the name or folder of a backup; empty: the newest")
    args = parser.parse_args(argv)
    try:
        stack = Stack(Place.from_environment())
        if args.verb == "demo":
            from local.demo import demo as run_demo

            return run_demo(stack, plan_of(args.model), ends=args.exit)
        if args.verb == "step":
            return step(stack, args.rest)
        if args.verb == "rerun":
            return rerun(stack, Wanted(**{name: value for name, value in vars(args).items() if name != "verb"}))
        if args.verb == "onboard":
            return onboard(stack, args.rest)
        if args.verb == "migrate":
            return migrate(stack, args.apply)
        if args.verb == "backup":
            return backup(stack, args.what, args.name)
        if args.verb == "restore-online":
            return restore_online(stack, args.sources)
        if args.verb == "evidence":
            return evidence(stack, args.model, args.version)
        if args.verb == "forget":
            return forget(stack, args.source, args.entity, args.dry_run)
        if args.verb == "sign":
            return sign(stack, args.model, args.versions)
        if args.verb == "ledger-verify":
            return ledger_verify(stack, args.models)
        return VERBS[args.verb][0](stack)
    except StepError as error:
        print(f"✗ {error}", file=sys.stderr)
        return 1
    except (OSError, Fault) as error:
        print(f"✗ {type(error).__name__}: {error}", file=sys.stderr)
        print("  → Check the free disk space and the permissions of the state and landing folders.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. `make status` shows what runs, `make down` stops it.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
