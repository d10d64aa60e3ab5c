"""What every room may import: step specs, inputs and results, exit codes, errors, the model spec. Pydantic only."""
