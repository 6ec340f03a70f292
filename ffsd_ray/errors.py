"""Errors that are the user's to mend: printed as one message, without a traceback."""


def summary(error: BaseException) -> str:
    """An exception's class and the first line of what it says."""
    said = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


class UserError(Exception):
    """Something the user said or supplied is wrong; the command ends with `status`."""

    status = 2


class JobError(UserError):
    """A job file or a command's argument is wrong. The message holds every problem found, one a paragraph."""


class DataError(UserError):
    """The images are missing, broken or labelled out of range. The message names the file and the row."""


class DataMissing(DataError):
    """There are no images where the settings say."""


class DataAway(DataError):
    """The images could not be fetched. Another try may succeed, later or from another node."""


class RecordsError(UserError):
    """A run's folder is missing, in use, or not what the command needs."""


class ClusterError(UserError):
    """The Ray cluster that was named cannot be reached."""


class ClusterLost(ClusterError):
    """The Ray cluster, or every node that a run could go on on, has gone; the run can be resumed later."""

    status = 1


class TrialError(Exception):
    """Training cannot go on and would fail in the same way if repeated (a term that is not finite, say)."""


class StorageError(UserError):
    """Records cannot be read or written, after all retries. The message names the file; a run can be resumed later."""

    status = 1


class StorageFull(StorageError, TrialError):
    """A disk has no space left for what was to be written. The message names file, filesystem, size and space."""


class DamagedRecords(RecordsError, TrialError):
    """A file of the records is not what was written there. Nothing in it has been run. The message names it."""


class MissingRecords(DamagedRecords, FileNotFoundError):
    """A file of the records is not there."""
