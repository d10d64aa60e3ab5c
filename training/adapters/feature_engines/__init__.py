"""Feature engines: one module per engine that runs the feature SQL. The name of the module is the engine's name."""
