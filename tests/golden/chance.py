# SPDX-License-Identifier: MIT
"""Chance for the generators here: the same seed gives the same choices."""


class Chance:
    """A generator that doesn't depend on the version of Python."""

    def __init__(self, seed):
        self.state = seed * 0x9e3779b97f4a7c15 + 1 & 2**64 - 1

    def below(self, bound):
        self.state = self.state + 0x9e3779b97f4a7c15 & 2**64 - 1
        mixed = (self.state ^ self.state >> 30) * 0xbf58476d1ce4e5b9 & 2**64 - 1
        mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111eb & 2**64 - 1
        return (mixed ^ mixed >> 31) % bound

    def one_of(self, *these):
        return these[self.below(len(these))]
