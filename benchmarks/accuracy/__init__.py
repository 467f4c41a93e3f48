"""Accuracy for a given training time: ours and peers, with the same minutes, crystals and threads.

`python -m benchmarks.accuracy` plans jobs (a model, a problem, a seed) and runs each in a separate process: `ours` in
the environment of the project, `peer` in that of the peers. Both read `job.json` and `data.npz` and write
`outcome.json`. A finished job is never run again.
"""
