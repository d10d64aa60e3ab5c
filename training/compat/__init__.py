"""The private parts of libraries that we use, one module per library. tests/compat fails when an upgrade moves one."""
