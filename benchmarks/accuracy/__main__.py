import signal

from benchmarks.accuracy.command import main

# Ctrl-C ends the job that is running; so must whoever stops this command from outside.
signal.signal(signal.SIGTERM, signal.default_int_handler)
main()
