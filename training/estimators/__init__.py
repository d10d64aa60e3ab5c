"""One file per estimator behind one protocol (base.py), each exported to one form of ONNX graph (graph.py)."""

import os

# Read by OpenMP when scikit-learn or torch loads it. By default its idle threads spin: beside other work on the same
# cores, fitting boosted trees then takes 4 to 20 times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
