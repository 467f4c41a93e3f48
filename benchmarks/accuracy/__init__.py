"""Accuracy for a given time: ours and peers trained on one budget of minutes, the same crystals and threads.

`python -m benchmarks.accuracy` plans jobs (a model, a problem, a seed) and runs each in a process of its own: `ours` in
the project's environment, `peer` in the peers' own. Both read `job.json` and `data.npz` and write `outcome.json`, so
that a finished job is never run again.
"""
