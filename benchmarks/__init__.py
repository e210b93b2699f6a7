"""Measurements and campaigns that are too long for the suite."""
