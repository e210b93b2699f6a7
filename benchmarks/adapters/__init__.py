"""Adapters between the project and published test cases."""
