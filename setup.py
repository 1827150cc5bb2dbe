"""What pyproject.toml cannot say: two C extensions, which may be left out."""

import sysconfig

from setuptools import Extension, setup

# Free-threaded Pythons have no stable ABI yet, and go without.
STABLE_ABI = not sysconfig.get_config_var("Py_GIL_DISABLED")

setup(
    ext_modules=[
        Extension(
            "bootc.formats._verity",
            ["src/bootc/formats/_verity.c"],
            py_limited_api=STABLE_ABI,
            # Loops over lanes must be unrolled to stay in registers: a sixth of the speed.
            extra_compile_args=["-O3"],
            # Without a compiler or Python's headers the installation goes on.
            optional=True,
        ),
        Extension(
            "bootc.repository._store",
            ["src/bootc/repository/_store.c"],
            py_limited_api=STABLE_ABI,
            optional=True,
        ),
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if STABLE_ABI else {},
)
