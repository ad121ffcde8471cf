"""What performs the protocol in a process: threads, asyncio, runs, clocks, names, logs."""
