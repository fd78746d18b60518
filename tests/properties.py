"""How many examples hypothesis tries: few and always the same in `make test`, many and fresh ones in `make properties`.

MESH_PROPERTIES is by how much more; what fails then is printed, and tried first the next time.
"""

import os

from hypothesis import HealthCheck, settings

FACTOR = int(os.environ.get("MESH_PROPERTIES", "1"))

settings.register_profile(
    "mesh",
    derandomize=FACTOR == 1,
    deadline=None,
    max_examples=100 * FACTOR,
    suppress_health_check=[HealthCheck.too_slow],
)


def examples(count: int) -> int:
    return count * FACTOR
