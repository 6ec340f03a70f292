"""Networks that begin with weights trained before, in place of random ones: `backbone.weights`."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from ffsd_ray.backbones import LIBRARIES, library_model
from ffsd_ray.config.backbone import BackboneSettings
from ffsd_ray.data.fingerprint import file_sha256
from ffsd_ray.deployed import some_names
from ffsd_ray.errors import TrialError, summary
from ffsd_ray.methods import Method

#: Keys under which training programs keep a network's state dictionary in a checkpoint.
_HOLDERS = ("state_dict", "model", "model_state_dict", "net")

#: What networks are called in such dictionaries, and where a backbone of another library's is in ours.
_PREFIXES = ("module.", "model.", "backbone.", "net.")

#: Classifiers beside the last one, which our networks leave out.
_AUXILIARY = ("aux", "AuxLogits")


def load_starting_weights(method: Method, settings: BackboneSettings, classes: int) -> list[str]:
    """Load the weights that the settings name into the group's networks; return what is to be said of it.

    Where those are of another number of classes the last layer stays as it was initialised. The method's `pretrained`
    are what was loaded.

    Raises:
        TrialError: the file cannot be read or has changed, or its weights are not those of such a backbone.
    """
    if settings.weights is None:
        return []
    weights, source = _read(settings), f"backbone.weights: {settings.weights}"
    deployed, _ = method.deployed
    chosen = [net for name, net in method.networks.items() if settings.weights_for == "all" or name == deployed]
    fresh: list[str] = []
    for network in chosen:
        fresh = _load(network, weights, classes, f"{source}: expected the weights of {settings.name}")
        method.pretrained += [parameter for name, parameter in network.named_parameters() if name not in fresh]
    replaced = f"; new, of {classes} classes: {', '.join(fresh)}" if fresh else ""
    return [f"{source}: in {len(chosen)} of {len(method.networks)} networks{replaced}"]


def _load(network: nn.Module, weights: Mapping[str, Tensor], classes: int, expected: str) -> list[str]:
    """Load what fits; return the names of the last layer's tensors if they do not. Raises TrialError."""
    ours = network.state_dict()
    theirs = _named_as(ours, weights)
    counted = {name for name in ours if not name.endswith("num_batches_tracked")}
    missing = sorted(counted - theirs.keys())
    unknown = sorted(name for name in theirs.keys() - ours.keys() if not _plain(name).startswith(_AUXILIARY))
    other = [name for name in ours.keys() & theirs.keys() if ours[name].shape != theirs[name].shape]
    head = [name for name in other if _is_head(ours[name], theirs[name], classes)]
    wrong = [f"{name} {list(theirs[name].shape)} instead of {list(ours[name].shape)}" for name in {*other} - {*head}]
    faults = {"no": missing, "unknown": unknown, "": sorted(wrong)}
    if said := "; ".join(f"{kind} {some_names(names)}".strip() for kind, names in faults.items() if names):
        raise TrialError(f"{expected}: {said}")
    fitting = {name: tensor for name, tensor in theirs.items() if name in ours and name not in head}
    if bad := sorted(name for name, tensor in fitting.items() if not tensor.isfinite().all()):
        raise TrialError(f"{expected}: finite ones, found others in {some_names(bad)}")
    network.load_state_dict(fitting, strict=False)
    return sorted(head)


def _is_head(ours: Tensor, theirs: Tensor, classes: int) -> bool:
    """Whether the two differ in the number of classes alone."""
    return ours.dim() > 0 and ours.shape[0] == classes and ours.shape[1:] == theirs.shape[1:]


def _named_as(ours: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under our names: without the prefixes of wrappers, and with ours."""
    plain = {_plain(name): name for name in ours}
    return {plain.get(_plain(name), name): tensor for name, tensor in weights.items()}


def _plain(name: str) -> str:
    while name.startswith(_PREFIXES):
        name = name.split(".", 1)[1]
    return name


def _read(settings: BackboneSettings) -> dict[str, Tensor]:
    """Raises TrialError."""
    assert settings.weights is not None
    if settings.weights == "default":
        return _of_library(settings.name)
    path = Path(settings.weights)
    expected = f"backbone.weights: {path}: expected a safetensors file or a state dictionary saved by torch"
    try:
        if (found := file_sha256(str(path))) != settings.weights_sha256:
            raise TrialError(f"backbone.weights: {path}: expected the SHA-256 {settings.weights_sha256}, found {found}")
        try:
            content: object = load_safetensors(path.read_bytes())
        except SafetensorError:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except TrialError:
        raise
    except Exception as error:  # whatever a parser meets in bytes from somewhere else
        raise TrialError(f"{expected} ({summary(error)})") from error
    holders: list[object] = [content.get(key) for key in _HOLDERS] if isinstance(content, dict) else []
    content = next((held for held in holders if isinstance(held, dict)), content)
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise TrialError(f"{expected}; this holds something else")
    return {str(name): tensor for name, tensor in content.items()}


def _of_library(name: str) -> dict[str, Tensor]:
    """The weights that a backbone's library has for it, downloaded once. Raises TrialError."""
    found = library_model(name)
    assert found is not None, "checked when the settings are read"
    library, model = found
    try:
        return LIBRARIES[library].default_weights(model)
    except Exception as error:  # of the network, of the file, of its hash
        hint = "give a file's path in place of default"
        raise TrialError(
            f"backbone.weights: {library}'s weights of {model} cannot be had here ({summary(error)}); {hint}"
        ) from error
