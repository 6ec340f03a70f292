"""Online knowledge distillation (FFSD and what it is compared with), trained as populations on Ray."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ffsd_ray.leader import load_leader as load_leader

    __version__: str

__all__ = ["__version__", "load_leader"]


def __getattr__(name: str) -> Any:
    # On first use: load_leader brings torch with it, and a checkout that is not installed has no version.
    if name == "load_leader":
        from ffsd_ray.leader import load_leader

        return load_leader
    if name == "__version__":
        from importlib.metadata import version

        return version("ffsd-ray")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
