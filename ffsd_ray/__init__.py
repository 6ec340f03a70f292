"""Online knowledge distillation (FFSD and what it is compared with), trained as populations on Ray."""

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ffsd_ray.api import Run as Run
    from ffsd_ray.api import Trial as Trial
    from ffsd_ray.api import fit as fit
    from ffsd_ray.api import open_run as open_run
    from ffsd_ray.deployed import load_model as load_model
    from ffsd_ray.group import build as build

    __version__: str

__all__ = ["Run", "Trial", "__version__", "build", "fit", "load_model", "open_run"]

# Python imports this package before the module of a command (`python -m ffsd_ray.run`), whose imports take seconds.
if sys.argv[:1] == ["-m"] and any(word.removeprefix("-m").startswith(f"{__name__}.") for word in sys.orig_argv):
    from ffsd_ray import garbage, interruption

    interruption.end_at_once()
    garbage.pause()


def __getattr__(name: str) -> Any:
    # On first use: they bring torch with them, and a checkout that is not installed has no version.
    if name == "load_model":
        from ffsd_ray.deployed import load_model

        return load_model
    if name == "build":
        from ffsd_ray.group import build

        return build
    if name in ("Run", "Trial", "fit", "open_run"):
        from ffsd_ray import api

        return getattr(api, name)
    if name == "__version__":
        from importlib.metadata import version

        return version("ffsd-ray")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
