"""Names in SQL."""


def quoted(name: str) -> str:
    """A column or relation as the SQL of DuckDB and delta-rs writes it. Its name may be a word of SQL: `order`."""
    return '"' + name.replace('"', '""') + '"'
