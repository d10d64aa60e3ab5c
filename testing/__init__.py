"""What tests and benchmarks share: free ports, and the prediction service with MLflow and tiny models around it."""
