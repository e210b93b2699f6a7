"""Lodemark: from price documents to signed releases. See DESIGN notes in ``docs/design.md``."""

__version__ = "0.1.0"
