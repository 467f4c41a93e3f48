"""The network. `network` holds the model, `attention` one layer, `frames` and `basis` the pure maths."""
