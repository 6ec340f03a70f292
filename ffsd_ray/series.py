"""Names in a trial's history: series made of several members, and what a row of it holds."""

#: Series of the common students together: the mean of their accuracies; an image counts as right where any student is
#: (Table I's "Ens"); the accuracy of their averaged logits.
MEAN, ANY, LOGITS = "students_mean", "ensemble_any", "ensemble_logits"

#: The smallest number of classes for which top-5 accuracy is reported beside top-1.
TOP5_FROM = 20

#: The largest number of classes of which a trial's confusion matrix is recorded, which grows with its square.
CONFUSION_TO = 100

#: One epoch's measurements: `epoch` (from 1), `seconds`, `images_per_second`, `lr`, `workers` (of an elastic trial),
#: `weight/<name>`, `term/<member>/<term>` and `<split>/<series>/<top1 | top5 | loss>`. A series is a member, or one of
#: the three above. The splits test and val are there where the epoch was evaluated. history.parquet has a column for
#: each.
HistoryRow = dict[str, float]
