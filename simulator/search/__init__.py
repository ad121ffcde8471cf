"""The exhaustive search: every order of events in a small world, and what must hold in each of its states."""
