"""The agent's side of the calls to NAS: provision, cancel, list."""
