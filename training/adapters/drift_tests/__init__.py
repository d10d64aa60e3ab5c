"""Drift tests: one module per test. The name of the module is the name in `monitoring.test` of a spec."""
