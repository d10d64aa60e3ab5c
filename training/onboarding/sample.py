"""Reads a sample of data: a Parquet or CSV file, or a folder of them. Columns get names that a spec can have."""

import codecs
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pyarrow.types as pt

from training.contract.errors import InputError
from training.contract.feeds import COLUMN_NAME, PARTITION
from training.contract.names import more_than_once
from training.contract.source_rules import FEAST_COLUMNS, TABLE_COLUMNS

READABLE = (".parquet", ".pq", ".csv")
#: Names of ours that no column of a feed, or no column that becomes a feature, may have.
_RESERVED = TABLE_COLUMNS | FEAST_COLUMNS | {PARTITION}
_LONGEST = 63
#: A field in quotes may have several lines.
_LINES = csv.ParseOptions(newlines_in_values=True)
#: Digits that are an identifier and not a number: with a zero before them, or more of them than a number holds.
_CODE, _LONG = "^0[0-9]{2,}$", "^[0-9]{17,}$"
#: Arrow guesses the types of columns from the first block, and refuses a later value of another type.
_CSV_BLOCK = 1 << 30
#: Letters that Unicode does not take apart into a plain letter and an accent.
_LETTERS = str.maketrans(
    {"ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L"}
    | {"đ": "d", "Đ": "D", "ð": "d", "Ð": "D", "þ": "th", "Þ": "TH", "ı": "i"}
)
_CSV_FORM = "Write it again as CSV: fields separated by commas, numbers with a decimal point, UTF-8."
_OTHER_SEPARATOR = re.compile(r"[;\t|]")
#: The numbers of the rows, which pandas writes beside the columns.
_PANDAS_INDEX = re.compile(r"__index_level_\d+__")


@dataclass(frozen=True)
class Sample:
    """The rows of a sample. Its columns have names that a spec can use, in the order of the file.

    `original`: column → its name in the file.
    """

    path: Path
    table: pa.Table
    original: dict[str, str]

    @property
    def renamed(self) -> dict[str, str]:
        """Column → its name in the file, where the two differ."""
        return {name: original for name, original in self.original.items() if name != original}

    def column(self, wanted: str) -> str:
        """The column that a person calls `wanted`, by its name here or in the file.

        Raises InputError when there is none.
        """
        found = [name for name, original in self.original.items() if wanted in (name, original)]
        found = found or [name for name in self.original if name.lower() == wanted.lower()]
        if not found:
            raise InputError(f"{self.path} has no column {wanted!r}", f"Its columns: {', '.join(self.original)}.")
        return found[0]


def read_sample(path: Path) -> Sample:
    """The rows of the file `path`, or of all files of the folder `path`.

    Raises InputError when there is no file, it cannot be read, or it has no rows.
    """
    files = _files(path)
    tables = [_read(file) for file in files]
    try:
        table = pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowException, TypeError) as error:
        raise InputError(f"The files in {path} have different columns: {error}", "Name one file as DATA.") from error
    if not table.num_rows:
        raise InputError(f"{path} has no rows", "Name a file with some weeks of rows as DATA.")
    names = spec_names(table.column_names)
    return Sample(path, table.rename_columns(names), dict(zip(names, table.column_names, strict=True)))


def spec_names(names: Sequence[str]) -> list[str]:
    """A name that a spec can use for each of the columns `names`. A valid name stays as it is.

    Letters lose their accents or become several (ß: ss), other characters become underscores, a name that is reserved
    or taken gets a suffix.
    """
    found: list[str] = []
    # Names that need no change come first, so that `a b` does not take the name of another column `a_b`.
    taken = {name.lower() for name in names if _is_valid(name)}
    for at, name in enumerate(names):
        if _is_valid(name) and name.lower() not in {each.lower() for each in found}:
            found.append(name)
            continue
        wanted = _plain(name) or f"column_{at + 1}"
        wanted = f"{wanted[: _LONGEST - 6]}_value" if wanted.lower() in _RESERVED else wanted
        chosen, number = wanted, 2
        while chosen.lower() in taken:
            chosen, number = f"{wanted[: _LONGEST - 5]}_{number}", number + 1
        taken.add(chosen.lower())
        found.append(chosen)
    return found


def _is_valid(name: str) -> bool:
    return bool(COLUMN_NAME.fullmatch(name)) and name.lower() not in _RESERVED


def _plain(name: str) -> str:
    ascii_only = unicodedata.normalize("NFKD", name.translate(_LETTERS)).encode("ascii", "ignore").decode()
    plain = re.sub(r"\W+", "_", ascii_only).strip("_")
    if plain[:1].isdigit():
        plain = f"column_{plain}"
    return plain[:_LONGEST]


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        files = [each for each in sorted(path.iterdir()) if _is_data(each)]
        if not files:
            raise InputError(f"The folder {path} has no files ending in {', '.join(READABLE)}", "Name another as DATA.")
        return files
    if not path.is_file():
        raise InputError(f"There is no file {path}", "Name a Parquet or CSV file, or a folder of them, as DATA.")
    if path.suffix.lower() not in READABLE:
        fix = "Convert it to Parquet, for example with pandas: frame.to_parquet('sample.parquet')."
        raise InputError(f"{path} does not end in {', '.join(READABLE)}", fix)
    return [path]


def _is_data(path: Path) -> bool:
    return path.suffix.lower() in READABLE and not path.name.startswith((".", "_"))


def _read(path: Path) -> pa.Table:
    """The rows of a file. Arrow guesses the types of a CSV file: numbers, true and false, ISO dates and times, text."""
    is_csv = path.suffix.lower() == ".csv"
    try:
        table = _read_csv(path) if is_csv else pq.ParquetFile(path).read()
        names = table.column_names
    except UnicodeDecodeError as error:
        raise _not_utf8(path, "the names of its columns") from error
    except (pa.ArrowException, OSError) as error:
        kind = "CSV" if is_csv else "Parquet"
        fix = _CSV_FORM if is_csv else "Write it again as Parquet."
        raise InputError(f"{path} cannot be read as {kind}: {error}", fix) from error
    if repeated := sorted(more_than_once(names)):
        raise InputError(f"{path} has several columns with the name {', '.join(repeated)}", "Rename them in the file.")
    if other := [name for name in names if _is_broken_text(table[name], is_csv)]:
        raise _not_utf8(path, f"the text of {', '.join(other)}")
    if is_csv and len(names) == 1 and (found := _OTHER_SEPARATOR.search(names[0])):
        raise InputError(f"{path} has one column, {names[0]!r}: {found[0]!r} seems to separate its fields", _CSV_FORM)
    return pa.table({name: _decoded(table[name]) for name in names if not _PANDAS_INDEX.fullmatch(name)})


def _read_csv(path: Path) -> pa.Table:
    """Arrow guesses the types. A column of digits that are a name stays text: as numbers, 007 and 7 would be one."""
    with path.open("rb") as file:
        if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            fix = "Save the file as UTF-8, for example: iconv -f UTF-16 -t UTF-8 old.csv > new.csv"
            raise InputError(f"{path} is UTF-16", fix)
    table = _parsed(path, {})
    if len(set(table.column_names)) < table.num_columns:
        return table
    names = [name for name in table.column_names if pt.is_integer(table[name].type) or pt.is_floating(table[name].type)]
    if not names:
        return table
    texts = _parsed(path, dict.fromkeys(names, pa.string()), names)
    for name in names:
        if _are_names(texts[name]):
            table = table.set_column(table.column_names.index(name), name, texts[name])
    return table


def _parsed(path: Path, types: dict[str, pa.DataType], columns: list[str] | None = None) -> pa.Table:
    block = min(_CSV_BLOCK, path.stat().st_size + 1)
    # An empty field and NA are missing values in a column of text, too.
    converted = csv.ConvertOptions(column_types=types, strings_can_be_null=True, include_columns=columns)
    return csv.read_csv(path, csv.ReadOptions(block_size=block), _LINES, converted)


def _are_names(texts: pa.ChunkedArray) -> bool:
    long = pc.sum(pc.match_substring_regex(texts, _LONG)).as_py() or 0
    return bool(pc.any(pc.match_substring_regex(texts, _CODE)).as_py()) or 2 * long > len(texts)


def _is_broken_text(values: pa.ChunkedArray, is_csv: bool) -> bool:
    """Whether some text is not UTF-8. In a CSV file, Arrow reads such a column as bytes."""
    if pt.is_binary(values.type):
        return is_csv
    kind = values.type.value_type if pt.is_dictionary(values.type) else values.type
    if not (pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind)):
        return False
    try:
        values.validate(full=True)
    except pa.ArrowInvalid:
        return True
    return False


def _not_utf8(path: Path, what: str) -> InputError:
    if path.suffix.lower() == ".csv":
        fix = "Save the file as UTF-8, for example: iconv -f ISO-8859-1 -t UTF-8 old.csv > new.csv"
    else:
        fix = "Write these columns again as UTF-8 text, or leave them out."
    return InputError(f"{path} is not UTF-8: {what} cannot be read", fix)


def _decoded(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Without dictionaries, and with NaN as null, as ingest reads it."""
    if pt.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pt.is_large_string(values.type) or pt.is_string_view(values.type):
        values = values.cast(pa.string())
    if pt.is_floating(values.type):
        values = values.cast(pa.float32()) if pt.is_float16(values.type) else values
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    return values
