"""The Open Inference Protocol, version 2, over HTTP: what clients of KServe, Seldon and Triton speak."""
