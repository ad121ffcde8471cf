"""The command line, and what the simulator's shares with it."""
