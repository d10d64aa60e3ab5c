"""Rows per second of the generator on one core, against the target of 1 million rows in 10 seconds.

python -m benchmarks.generator_speed
"""

import time
from datetime import date, timedelta

from local.generator import Generator

TARGET_ROWS_PER_SECOND = 100_000
ROWS = 1_000_000


def main() -> None:
    generator, day, rows = Generator(), date(2026, 1, 5), 0
    # CPU time of this process: what one core needs, whatever else runs on the machine.
    start = time.process_time()
    while rows < ROWS:
        rows += generator.events(day).num_rows
        day += timedelta(days=1)
    rate = rows / (time.process_time() - start)
    print(f"{rows:,} rows at {rate:,.0f} rows/s: {rate / TARGET_ROWS_PER_SECOND:.1f} times the target")


if __name__ == "__main__":
    main()
