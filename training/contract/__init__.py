"""Shared by all rooms: steps with their inputs and results, errors and exit codes, the model spec. Pydantic only."""
