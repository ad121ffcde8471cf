"""What went wrong in production, as agents that do it: each is `careful.Careful` with one mistake.

The scenarios that are called after incidents (`python -m simulator list`) run them beside the project's own.
"""
