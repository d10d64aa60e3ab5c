"""What a Parquet file says about the memory that its rows take."""

import pyarrow.parquet as pq

#: Bytes of a value in Arrow, by its type in the file. A text has an offset; its bytes are counted apart.
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 8, "FLOAT": 4, "DOUBLE": 8, "BYTE_ARRAY": 4}


def declared_bytes(metadata: pq.FileMetaData) -> int:
    """Bytes that the rows take in memory at least, according to the file's footer.

    A page can repeat a value for nothing, so the number of rows counts too, and not only the size of the pages before
    compression. A footer may say too little: what it does not bound is how long texts and lists are that a dictionary
    repeats. The metadata of single columns would say more, but Arrow ends the process when they are damaged.
    """
    width = sum(_width(metadata.schema.column(at)) for at in range(metadata.num_columns))
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    return sum(max(group.total_byte_size, group.num_rows * width, 0) for group in groups)


def _width(column: pq.ColumnSchema) -> int:
    if column.logical_type.type == "DECIMAL":
        return 16 if column.precision <= 38 else 32
    return _WIDTHS.get(column.physical_type) or max(column.length, 0)
