"""One file per estimator behind one protocol (base.py), each exported to one form of ONNX graph (graph.py)."""
