"""The only part of the package that imports Ray."""

import logging
import os
import warnings

# Read by Ray when it is imported or started: how often a trial's reports are fetched (its own 2 s would make short
# epochs wait), no traffic to Ray's makers, and Ctrl-C left to us.
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# How soon workers learn that a spot node is taken back: its own 5 s are a fifth of what Google gives.
os.environ.setdefault("RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
# Tune's own files of every epoch (CSV, JSON, TensorBoard under its own names) would say again what the records say.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
# Nor its tracebacks: of a trial's process that fails, the view says why, and its records hold all of it.
os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")
# A trial that fails before its first epoch has nothing to be ranked by; it is in the records as failed.
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")

# In a notebook Ray and its tqdm advise to install ipywidgets, which the view does without.
logging.getLogger("ray.widgets.util").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", "IProgress not found", module="tqdm")
