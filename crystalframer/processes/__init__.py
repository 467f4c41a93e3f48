"""Processes on this machine that share out work: for screenings, ablations, searches, and training on several devices.

`pool` hands out items and collects results, `child` starts a process and talks to it, `worker` is what the process
runs, `sharing` passes arrays and errors from one process to another. `forks` makes forks of a user's process safe.
"""
