"""Generates card payments and their late labels from a seed. Any day can be generated alone, with changes if wanted.

The payments follow the simulator of the Fraud Detection Handbook (Le Borgne, Siblini, Lebichot, Bontempi, chapter 3):
each customer has a mean amount, a rate and a place, and pays at terminals within reach. Three kinds of fraud: single
large amounts; terminals compromised for 28 days, where every payment is fraudulent; customers' credentials leaked for
14 days, in which a third of their payments is fraudulent with five times the amount. About 1.1 % are frauds.

    python -m local.generator --landing DIR --start 2026-01-05 --days 42 --change amount_inflation@2026-02-02=1.8
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from enum import IntEnum
from pathlib import Path

import numpy as np
import pyarrow as pa

from local.changes import Change, ChangeKind
from local.landing import EVENTS_SCHEMA, LABELS_SCHEMA, land_table, positive, split
from training.contract.base import Days

__all__ = ["LABEL_DELAY", "Change", "Generator", "land"]

LABEL_DELAY = timedelta(days=7)
#: Transaction ids are day number × this + position in the day.
IDS_PER_DAY = 10**9
_DAY_MICROSECONDS = 86_400_000_000
_UNIX_EPOCH = date(1970, 1, 1)

_TERMINAL_DAYS, _TERMINAL_RATE = 28, 0.0003
_CUSTOMER_DAYS, _CUSTOMER_RATE = 14, 0.0006
_CUSTOMER_SHARE, _CUSTOMER_FACTOR = 1 / 3, 5
_LARGE_RATE, _LARGE_AMOUNT = 0.0006, (220.0, 500.0)
_NIGHT_FRAUD_DAYS, _NIGHT_FRAUD_PER_DAY = 7, 3.0
#: Terminals within a customer's reach.
_REACH = 30


class _Stream(IntEnum):
    """Each use of randomness has its own stream, so that a change in the data does not alter the other draws."""

    CUSTOMERS = 0
    TERMINALS = 1
    PAYMENTS = 2
    TERMINALS_COMPROMISED = 3
    CUSTOMERS_LEAKED = 4
    NEW_CUSTOMERS = 5
    NEW_PAYMENTS = 6
    NIGHT_VICTIMS = 7
    NIGHT_PAYMENTS = 8
    FAULTY_TERMINALS = 9
    MOVED_FRAUDS = 10


@dataclass
class _Payments:
    """The payments of one day, one array per column. `seconds` counts from midnight."""

    seconds: np.ndarray
    customer: np.ndarray
    terminal: np.ndarray
    amount: np.ndarray
    fraud: np.ndarray

    @classmethod
    def concatenate(cls, parts: "Sequence[_Payments]") -> "_Payments":
        names = cls.__dataclass_fields__
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


@dataclass(frozen=True)
class _Customers:
    """The habits of customers, one row each. Ids start at `first_id`. `place` is a position in a ring of terminals."""

    first_id: int
    mean: np.ndarray
    rate: np.ndarray
    place: np.ndarray
    busiest_second: int

    @classmethod
    def draw(cls, rng: np.random.Generator, count: int, terminals: int, payments_per_day: float) -> "_Customers":
        mean, rate = rng.uniform(5, 100, count), rng.uniform(0, 2 * payments_per_day, count)
        return cls(0, mean, rate, rng.integers(0, terminals, count), busiest_second=43_200)

    def newcomers(self, rng: np.random.Generator, share: float, grown: float, first_id: int) -> "_Customers":
        """`share` as many customers as these, with other habits: the part `grown` of them, who came first."""
        like = rng.integers(0, len(self.mean), round(share * len(self.mean)))
        like = like[: round(grown * len(like))]
        return _Customers(first_id, 2 * self.mean[like], 2 * self.rate[like], self.place[like], 75_600)


class Generator:
    """Payments of `customers` at `terminals`, about `payments_per_day` per customer, in the tables of the spec.

    The arguments and the day determine every row. Memory and time grow with the rows of that day only.
    """

    def __init__(
        self,
        seed: int = 0,
        customers: int = 1000,
        terminals: int = 2000,
        changes: Sequence[Change] = (),
        payments_per_day: float = 2.0,
    ) -> None:
        self._seed = seed
        self._changes = tuple(changes)
        #: Terminal ids in the order of the ring: the ids of neighbours are unrelated.
        self._terminals = self._rng(_Stream.TERMINALS).permutation(terminals)
        self._customers = _Customers.draw(self._rng(_Stream.CUSTOMERS), customers, terminals, payments_per_day)

    def events(self, day: date) -> pa.Table:
        """The payments of `day`, in the order of their times."""
        payments = self._payments(day)
        return pa.table(
            [self._ids(payments, day), _times(payments, day), payments.customer, payments.terminal, payments.amount],
            schema=EVENTS_SCHEMA,
        )

    def labels(self, day: date) -> pa.Table:
        """The labels reported on `day`: those of all payments made seven days earlier."""
        made = day - LABEL_DELAY
        payments = self._payments(made)
        return pa.table(
            [self._ids(payments, made), payments.fraud.astype(np.int64), _times(payments, day)], schema=LABELS_SCHEMA
        )

    def _rng(self, stream: _Stream, day: date | None = None, change: int = 0) -> np.random.Generator:
        """The random numbers of one stream, on one day, for the change at position `change`."""
        return np.random.default_rng([self._seed, stream, 0 if day is None else day.toordinal(), change])

    def _ids(self, payments: _Payments, day: date) -> np.ndarray:
        return (day - _UNIX_EPOCH).days * IDS_PER_DAY + np.arange(len(payments.amount), dtype=np.int64)

    def _payments(self, day: date) -> _Payments:
        parts = [self._made_by(self._customers, self._rng(_Stream.PAYMENTS, day), day)]
        for at, change in self._active(day, "population_shift"):
            first_id = len(self._customers.mean) * (1 + at)
            drawn = self._rng(_Stream.NEW_CUSTOMERS, change=at)
            newcomers = self._customers.newcomers(drawn, change.value, change.grown(day), first_id)
            parts.append(self._made_by(newcomers, self._rng(_Stream.NEW_PAYMENTS, day, at), day))
        parts += [self._night_frauds(at, change, day) for at, change in self._active(day, "new_fraud")]
        payments = _Payments.concatenate(parts)
        for _, change in self._active(day, "amount_inflation"):
            payments.amount *= change.on(day)
        self._break_terminals(payments, day)
        self._move_frauds(payments, day)
        payments.amount = payments.amount.round(2)
        order = np.argsort(payments.seconds, kind="stable")
        return _Payments(**{name: column[order] for name, column in vars(payments).items()})

    def _active(self, day: date, kind: ChangeKind) -> list[tuple[int, Change]]:
        """The active changes of `kind`, each with its position."""
        return [(at, change) for at, change in enumerate(self._changes) if change.kind == kind and change.active(day)]

    def _made_by(self, customers: _Customers, rng: np.random.Generator, day: date) -> _Payments:
        who = np.repeat(np.arange(len(customers.mean)), rng.poisson(customers.rate))
        count, mean = len(who), customers.mean[who]
        amount = rng.normal(mean, mean / 2)
        amount = np.where(amount > 0, amount, rng.uniform(0, 2 * mean))
        where = (customers.place[who] + rng.integers(0, _REACH, count)) % len(self._terminals)
        payments = _Payments(
            seconds=rng.normal(customers.busiest_second, 20_000, count) % 86_400,
            customer=customers.first_id + who,
            terminal=self._terminals[where],
            amount=amount,
            fraud=np.zeros(count, dtype=bool),
        )
        self._commit_frauds(payments, rng, day)
        return payments

    def _commit_frauds(self, payments: _Payments, rng: np.random.Generator, day: date) -> None:
        count = len(payments.amount)
        large = rng.random(count) < _LARGE_RATE
        payments.amount[large] = rng.uniform(*_LARGE_AMOUNT, size=large.sum())
        compromised = self._affected(_Stream.TERMINALS_COMPROMISED, day, _TERMINAL_DAYS, lambda _: _TERMINAL_RATE)
        leaked = self._affected(_Stream.CUSTOMERS_LEAKED, day, _CUSTOMER_DAYS, lambda _: _CUSTOMER_RATE)
        abused = np.isin(payments.customer, leaked) & (rng.random(count) < _CUSTOMER_SHARE)
        payments.amount[abused] *= _CUSTOMER_FACTOR
        payments.fraud |= large | abused | np.isin(payments.terminal, compromised)

    def _affected(
        self, stream: _Stream, day: date, lasting: int, rate: Callable[[date], float], change: int = 0
    ) -> np.ndarray:
        """Ids affected in the `lasting` days up to `day`. Each day has its own seed, so no state is kept."""
        ids = len(self._terminals) if stream is _Stream.TERMINALS_COMPROMISED else len(self._customers.mean)
        draws = [np.empty(0, dtype=np.int64)]
        for struck in (day - timedelta(days=back) for back in range(lasting)):
            rng = self._rng(stream, struck, change)
            draws.append(rng.integers(0, ids, rng.poisson(rate(struck) * ids)))
        return np.concatenate(draws)

    def _night_frauds(self, at: int, change: Change, day: date) -> _Payments:

        def rate(struck: date) -> float:
            return change.on(struck) if struck >= change.start else 0.0

        victims = self._affected(_Stream.NIGHT_VICTIMS, day, _NIGHT_FRAUD_DAYS, rate, at)
        rng = self._rng(_Stream.NIGHT_PAYMENTS, day, at)
        who = np.repeat(victims, rng.poisson(_NIGHT_FRAUD_PER_DAY, len(victims)))
        return _Payments(
            seconds=rng.uniform(3600, 5 * 3600, len(who)),
            customer=who,
            terminal=rng.integers(0, len(self._terminals), len(who)),
            amount=rng.uniform(1, 10, len(who)),
            fraud=np.ones(len(who), dtype=bool),
        )

    def _break_terminals(self, payments: _Payments, day: date) -> None:
        broken = [*self._active(day, "zero_amounts"), *self._active(day, "stuck_terminals")]
        for at, change in broken:
            shuffled = self._rng(_Stream.FAULTY_TERMINALS, change=at).permutation(len(self._terminals))
            faulty = shuffled[: round(change.on(day) * len(shuffled))]
            rows = np.isin(payments.terminal, faulty)
            if change.kind == "zero_amounts":
                payments.amount[rows] = 0.0
            else:
                payments.terminal[rows] = faulty[:1]

    def _move_frauds(self, payments: _Payments, day: date) -> None:
        for at, change in self._active(day, "moved_frauds"):
            rng = self._rng(_Stream.MOVED_FRAUDS, day, at)
            frauds, others = np.flatnonzero(payments.fraud), np.flatnonzero(~payments.fraud)
            moved = frauds[rng.random(len(frauds)) < change.on(day)]
            payments.fraud[moved] = False
            payments.fraud[rng.choice(others, len(moved), replace=False)] = True


def _times(payments: _Payments, day: date) -> pa.Array:
    """Instants on `day`, timestamp[us, UTC]."""
    midnight = (day - _UNIX_EPOCH).days * _DAY_MICROSECONDS
    return pa.array(midnight + (payments.seconds * 1_000_000).astype(np.int64)).cast(EVENTS_SCHEMA.types[1])


def land(generator: Generator, landing: Path, source: str, feed: str, days: Days) -> Path:
    """Write one partition file with `feed`'s rows of `days` (labels: reported in these days). Returns its path."""
    make = generator.events if feed == "events" else generator.labels
    tables = [make(days.start + timedelta(days=at)) for at in range(len(days))]
    return land_table(pa.concat_tables(tables), landing, source, feed, days)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m local.generator", description="Land generated card payments.")
    parser.add_argument("--landing", type=Path, required=True, help="the landing folder")
    parser.add_argument("--source", default="card_payments")
    parser.add_argument("--start", type=date.fromisoformat, required=True, help="the first day of payments")
    parser.add_argument("--days", type=positive, default=42, help="days of payments; labels up to the last of them")
    parser.add_argument("--days-per-file", type=positive, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--customers", type=positive, default=1000)
    parser.add_argument("--terminals", type=positive, default=2000)
    parser.add_argument("--payments-per-day", type=float, default=2.0, help="per customer, on average")
    parser.add_argument(
        "--change", action="append", default=[], help="kind@start[..end][=strength][/days], may be repeated"
    )
    args = parser.parse_args(argv)
    try:
        changes = [Change.parse(text) for text in args.change]
    except ValueError as error:
        parser.error(str(error))
    generator = Generator(args.seed, args.customers, args.terminals, changes, args.payments_per_day)
    days = Days(start=args.start, end=args.start + timedelta(days=args.days))
    for part in split(days, args.days_per_file):
        print(land(generator, args.landing, args.source, "events", part))
    if args.start + LABEL_DELAY < days.end:
        for part in split(Days(start=args.start + LABEL_DELAY, end=days.end), args.days_per_file):
            print(land(generator, args.landing, args.source, "labels", part))


if __name__ == "__main__":
    main()
