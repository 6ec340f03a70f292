"""A job's trials as Tune gets them, one after the other."""

from pathlib import Path
from typing import Any

from ray.tune.experiment import Experiment, Trial

from ffsd_ray.config.searchers import EveryTrial
from ffsd_ray.launch.ray_internals import ListedTrials
from ffsd_ray.launch.search.schedulers import scheduler


class Counted(dict[str, Any]):
    """Knows how many copies have been made of its like."""

    copies = 0

    def __deepcopy__(self, memo: object) -> "Counted":
        type(self).copies += 1
        return Counted(self)


def test_tune_copies_each_of_them_a_few_times(tmp_path: Path) -> None:
    """Of a grid search it copies every value for each trial: 10,000 trials would take hours before the first."""
    configs = [{"trial": Counted(number=number)} for number in range(100)]
    searcher = ListedTrials(configs)
    searcher.add_configurations([Experiment("run", lambda config: None, config={}, storage_path=str(tmp_path))])
    searcher.max_concurrent = 1
    trials = []
    while (trial := searcher.next_trial()) is not None:
        trials.append(trial)
        assert searcher.next_trial() is None, "one at a time"
        assert not searcher.is_finished()
        searcher.on_trial_complete(trial.trial_id)
    assert searcher.is_finished()
    assert searcher.total_samples == 100
    assert [trial.config for trial in trials] == configs
    assert len({trial.trial_id for trial in trials}) == 100
    assert Counted.copies <= 5 * 100


class Followed:
    """A trial that knows how often it has been looked at."""

    looks = 0

    def __init__(self, state: str) -> None:
        self.state = state

    @property
    def status(self) -> str:
        self.looks += 1
        return self.state

    def is_finished(self) -> bool:
        return self.status == Trial.TERMINATED


def test_the_next_is_looked_for_among_those_that_have_not_ended() -> None:
    """At every event: to look at all of a run's would take the longer the more of them have ended."""
    in_order: Any = scheduler(EveryTrial(), [])
    trials = [Followed(Trial.PENDING) for _ in range(100)]
    for trial in trials:
        in_order.on_trial_add(None, trial)
        assert in_order.choose_trial_to_run(None) is trial
        trial.state = Trial.TERMINATED
    assert in_order.choose_trial_to_run(None) is None
    assert max(trial.looks for trial in trials) <= 5
    paused, pending = Followed(Trial.PAUSED), Followed(Trial.PENDING)
    in_order.on_trial_add(None, paused)
    assert in_order.choose_trial_to_run(None) is paused
    in_order.on_trial_add(None, pending)
    assert in_order.choose_trial_to_run(None) is pending
