"""The network: `network` holds the model, `attention` one layer, and `tracing` the records of both."""
