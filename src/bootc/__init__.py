"""Boot operating systems from container images, on the composefs-native layout.

This package imports nothing, so that no import ring can run through it and the
command starts fast.
"""

__version__ = "0.1.0"
