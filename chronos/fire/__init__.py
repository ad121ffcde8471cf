"""The fires that come from NAS: who may send them, and how they are answered."""
