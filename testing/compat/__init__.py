"""The private parts of libraries that tests need, one module per library. tests/compat finds one that has moved."""
