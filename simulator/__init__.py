"""A deterministic simulator of everything around the scheduler: NAS, clocks, machines, the network.

It drives the protocol code that integrators import, and checks that no job is ever lost.
"""
