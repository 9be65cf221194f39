"""Engines, one a framework: the steps of an epoch as one compiled program."""
