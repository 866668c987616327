"""Simulation: the same core, shards, slots and coordinator in virtual time, among as many machines as one likes."""
