"""The commands of `python -m simulator`: the options of each, and what it prints."""
