"""Hypothesis profiles: `pytest --hypothesis-profile=thorough` before a release."""

from hypothesis import settings

settings.register_profile("default", max_examples=60, deadline=None, print_blob=True)
settings.register_profile("thorough", parent=settings.get_profile("default"), max_examples=500)
settings.load_profile("default")
