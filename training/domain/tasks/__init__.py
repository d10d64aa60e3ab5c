"""One module per kind of task. Each imports NumPy only, because serving needs it too."""
