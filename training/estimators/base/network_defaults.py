"""Default parameters of networks, in a module without torch: a check of a spec reads these, and torch takes seconds."""

#: Parameters of training that every network has.
TRAINING = {
    "learning_rate": 1e-3,
    "weight_decay": 1e-4,
    "batch_size": 512,
    "max_epochs": 30,
    "patience": 4,
    "validation_share": 0.15,
}
#: A positive row counts as this many negative rows.
POSITIVE_WEIGHT = 5.0
