from benchmarks.accuracy.command import main

main()
