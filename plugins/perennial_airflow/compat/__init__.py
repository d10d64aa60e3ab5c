"""Private parts of our dependencies, one module per library. tests/plugins/test_compat.py fails when one moves."""
