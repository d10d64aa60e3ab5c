"""Shares of a landed file are read where they lie, by processes that have not opened the whole."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training import storage
from training.adapters import landing
from training.adapters.landing import open_landed, open_share


def written(uri: str, values: list[int], folder: Path) -> pa.Table:
    rows = pa.table({"id": values})
    pq.write_table(rows, folder / "rows", row_group_size=3)
    storage.write(uri, (folder / "rows").read_bytes())
    return rows


@pytest.mark.parametrize("where", ["local", "s3"])
def test_the_shares_are_the_rows_and_another_file_is_told(
    where: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landing, "_SHARE_BYTES", 1)
    uri = f"{tmp_path}/a b.parquet" if where == "local" else f"{request.getfixturevalue('s3')}/shares/a b.parquet"
    rows = written(uri, list(range(10)), tmp_path)
    with open_landed(uri, 1 << 30, tmp_path) as landed:
        shares, schema = landed.shares(), landed.schema()
        assert [share.first for share in shares] == [0, 3, 6, 9]
        for share in shares:
            with open_share(share, schema, 1 << 30) as part:
                found = pa.concat_tables(part.batches(share))
            assert found.equals(rows.slice(share.first, 3))
            assert pa.concat_tables(landed.batches(share)).equals(found)
        written(uri, list(range(10, 20)), tmp_path)
        with pytest.raises(OSError, match="is another file now"), open_share(shares[0], schema, 1 << 30):
            pass
    storage.remove(uri)
    with pytest.raises(OSError, match=r"a b\.parquet"), open_share(shares[0], schema, 1 << 30):
        pass
