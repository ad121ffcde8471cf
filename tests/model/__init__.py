"""The scheduler against a simple model: its world, what is expected of it, and the machine that compares."""
