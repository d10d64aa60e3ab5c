"""`python -m training.print_sql SOURCE [TABLE]`: prints the SELECTs of a source's feature tables, generated or written.

The output has the form of `feature_repo/<source>.sql`: copy a SELECT into that file to continue by hand.
"""

import argparse
import sys

from training.adapters.feature_query import FeatureQueries
from training.contract.errors import ConfigError, ExitCode, StepError
from training.contract.names import did_you_mean
from training.contract.source_spec import load_source_spec
from training.settings import load_settings


def main(argv: list[str] | None = None) -> int:
    """Returns 0, or the exit code of the error."""
    parser = argparse.ArgumentParser(prog="training.print_sql")
    parser.add_argument("source")
    parser.add_argument("table", nargs="?")
    wanted = parser.parse_args(argv)
    try:
        folder = load_settings().feature_repo
        source = load_source_spec(wanted.source, folder)
        if wanted.table and wanted.table not in source.entities:
            meant = did_you_mean(wanted.table, source.entities)
            problem = f"{wanted.source} has no feature table {wanted.table!r}"
            raise ConfigError(problem, hint=f"{meant}Its tables: {', '.join(source.entities) or 'none'}.")
        queries = FeatureQueries.of_source(source, folder)
        for table in [wanted.table] if wanted.table else source.entities:
            print(f"-- table: {table}\n{queries.sql(table)}\n")
    except StepError as error:
        print(f"print_sql failed: {error}", file=sys.stderr)
        return error.exit_code
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
