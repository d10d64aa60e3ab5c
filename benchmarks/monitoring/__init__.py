"""Whether monitoring finds planted changes, and how often it asks for a training when nothing has changed."""
