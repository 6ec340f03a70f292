"""What is alive on the connected Ray cluster."""

import ray
from ray._private.state import actors as actor_table


def alive() -> tuple[list[str], int]:
    """The classes of the connected cluster's living actors, and how many placement groups it has.

    Actors with a name are Ray's own, one a cluster.
    """
    living = [actor for actor in actor_table().values() if actor["State"] != "DEAD"]
    actors = [actor["ActorClassName"] for actor in living if not actor["Name"]]
    groups = [group for group in ray.util.placement_group_table().values() if group["state"] != "REMOVED"]
    return sorted(actors), len(groups)
