"""The whole Python interface once, cell by cell, as somebody would write it in a notebook; it writes into the folder it
runs in. `tests/unit/test_api.py` runs it in the tests' process, and its cells in a real kernel.
"""

# %% Train what a dictionary says; the same job comes from a file further down.
from pathlib import Path

import pandas as pd
import torch
import yaml
from PIL import Image

import ffsd_ray
from ffsd_ray.errors import JobError

job = {
    "name": "notebook",
    "context": "local",
    "data": {"name": "digits", "image_size": 8, "validation": 0.2, "test_per_class": 10},
    "backbone": "resnet8",
    "train": {"epochs": 1, "batch_size": 32, "lr": 0.05, "steps_per_epoch": 2},
    "seed": [0, 1],
    "search": {"grid": {"method": ["baseline", "ffsd"]}},
}
run = ffsd_ray.fit(job, {"train.epochs": 2})
assert repr(run).endswith("notebook: 4 of 4 trials completed")
run  # noqa: B018

# %% Results, a line a trial.
results = run.results()
assert list(results["label"]) == ["baseline, seed 0", "baseline, seed 1", "ffsd n=2, seed 0", "ffsd n=2, seed 1"]
assert list(results["series"]) == ["student", "student", "leader", "leader"]
assert set(results["state"]) == {"completed"}
for trial, line in zip(run, results.to_dict("records"), strict=True):
    assert line["seed"] == trial.spec.seed
    assert line["last"] == trial.result["last"][f"test/{line['series']}/top1"]
assert list(run.table("last")["configuration"]) == ["baseline", "ffsd n=2"]

# %% Histories, a line an epoch.
history = run.history()
assert list(history["epoch"]) == [1, 2] * 4
assert history["test/leader/top1"].notna().sum() == 4
of_one = history[history["label"] == "ffsd n=2, seed 0"]["term/leader/ce"].reset_index(drop=True)
pd.testing.assert_series_equal(run.trials[2].history()["term/leader/ce"], of_one)

# %% The best trial, and its network.
best = run.best()
reached = results.set_index("trial").loc[best.spec.identity()]
assert best.result["best"][reached["series"]]["top1"] == reached["best"]
model = best.load()
assert ffsd_ray.load_model("runs/notebook/best.safetensors").card == model.card
assert best.load("last").card.epoch == 2
assert model(torch.zeros(2, 3, 8, 8)).shape == (2, 10)

# %% Predictions for a picture, several, and a folder.
folder = Path("pictures")
folder.mkdir()
for number in range(3):
    Image.new("L", (20, 20), 80 * number).save(folder / f"{number}.png")
files = sorted(folder.iterdir())
of_folder = model.predict(folder)
assert [found.picture for found in of_folder] == [str(file) for file in files]
assert [found.probabilities for found in model.predict(files)] == [found.probabilities for found in of_folder]
[alone] = model.predict(Image.open(files[1]))
assert (alone.label, alone.probability) == (of_folder[1].label, of_folder[1].probability)

# %% A job file, with a value set over it.
Path("job.yaml").write_text(yaml.safe_dump(job | {"name": "file", "seed": 0, "search": {}, "method": "baseline"}))
of_file = ffsd_ray.fit("job.yaml", {"train.lr": 1e-5}, storage="elsewhere")
assert of_file.trials[0].spec.train.lr == 1e-5

# %% A run is opened again, and gone on with.
assert ffsd_ray.open_run("runs/notebook").results().equals(results)
assert ffsd_ray.fit(job, {"train.epochs": 2}, resume=True).results().equals(results)

# %% A mistake is an exception whose message is the command's.
try:
    ffsd_ray.fit(job | {"metod": "ffsd"})
except JobError as error:
    said = str(error)
assert "metod" in said
assert "Did you mean `method`?" in said

# %% A group in a loop of one's own.
group = ffsd_ray.build("ffsd", backbone="resnet8", classes=10, image_size=12, seed=0, students=2)
optimisers = group.optimisers(lr=0.05)
images = torch.randn(16, 3, 12, 12, generator=torch.Generator().manual_seed(0))
labels = torch.arange(16) % 10
group.begin_epoch(1)
losses = []
for _ in range(8):
    terms = group(images, labels)
    optimisers.zero_grad()
    terms.total.backward()
    optimisers.step(group.method.roles())
    losses.append(terms.terms["leader/ce"].item())
assert losses[-1] < losses[0]
predicted = group.predict(images)
assert predicted.keys() == {"student1", "student2", "leader", "fusion"}
assert group.training
with torch.no_grad():
    assert torch.equal(predicted["leader"], group.eval().deployed(images).logits)

# %% The page, and learning curves as a figure.
assert "ffsd n=2" in run.page("run.html").read_text()
figure = run.plot()
assert figure.axes
figure  # noqa: B018
