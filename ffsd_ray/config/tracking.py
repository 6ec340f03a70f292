"""Where a run can be watched beside TensorBoard: the `watch` section of a job file."""

from pydantic import Field

from ffsd_ray.base_settings import LONGEST_NAME, Location, Name, Settings


class WandbSettings(Settings):
    """Weights & Biases. The key comes from WANDB_API_KEY or `wandb login`; WANDB_MODE=offline keeps runs on disk."""

    project: str = Field(
        min_length=1, max_length=LONGEST_NAME, description="The project in which every trial is a run."
    )
    entity: Name | None = Field(None, description="The user or team whose project it is; null: the key's own.")


class MlflowSettings(Settings):
    """MLflow. User, password and token come from the environment (MLFLOW_TRACKING_USERNAME, _PASSWORD, _TOKEN)."""

    experiment: str = Field(
        min_length=1, max_length=LONGEST_NAME, description="The experiment in which every trial is a run."
    )
    tracking_uri: Location | None = Field(
        None, description="A server's address, or sqlite:///FILE; null: MLFLOW_TRACKING_URI, or else MLflow's default."
    )


class WatchSettings(Settings):
    """Services that are sent every trial's settings and epochs. TensorBoard's files are written in any case."""

    wandb: WandbSettings | None = Field(None, description="Weights & Biases, if given.")
    mlflow: MlflowSettings | None = Field(None, description="MLflow, if given.")

    @property
    def services(self) -> list[str]:
        """The keys of those that are asked for."""
        return [name for name in type(self).model_fields if getattr(self, name) is not None]
