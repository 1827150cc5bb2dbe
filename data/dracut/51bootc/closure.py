#!/usr/bin/python3 -SI
"""Put what the initramfs step imports into an initramfs tree.

    closure.py INITDIR [MODULE ...]

Imports the step (and the further modules named), then writes the bytecode of every
module this took below INITDIR, without sources, and prints the paths of extension
modules, one a line, for dracut to install together with their libraries.
"""

import sys

STEP = "bootc.initramfs.setup_root"

# The one path the launcher adds.
sys.path.append("/usr/lib/python3/dist-packages")


def main(initdir: str, *modules: str) -> None:
    """Write bytecode, print extension modules."""
    for name in (STEP, *modules):
        __import__(name)
    # Some entries are no modules, as typing.io in Python 3.11.
    specs = [getattr(module, "__spec__", None) for module in sys.modules.values()]

    # Only now: what this program needs for itself must not get in.
    import os
    import py_compile

    # os comes frozen into the interpreter, but its file tells where the library is.
    sources = {os.__file__}
    for spec in specs:
        if spec is None or not spec.has_location or spec.origin is None:
            continue  # built into the interpreter
        if spec.origin.endswith(".py"):
            sources.add(spec.origin)
        else:
            sys.stdout.write(f"{spec.origin}\n")
    for source in sorted(sources):
        py_compile.compile(
            source,
            cfile=f"{initdir}{source}c",
            dfile=source,
            doraise=True,
            optimize=2,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
