"""Retraining policies: one module per policy. The name of the module is the name in `retraining.policy` of a spec."""
