"""Estimators: one module per estimator. What they share is in the package `base`."""
