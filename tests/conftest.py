"""What holds for every test: no example has a time limit, for the speed of a machine proves nothing."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
