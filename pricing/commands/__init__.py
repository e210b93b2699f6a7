"""Groups of commands that are too long for ``service.py``, which gives them what they need."""
