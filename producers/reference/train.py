"""Trains the shipped models from the shipped train data: `python -m producers.reference.train`.

In: data/*_train.jsonl. Out: data/*_model.json, and on standard output the accuracy on data the training never saw.
Promise: the same bytes each time (no chance in it). Plain Python: a few seconds.
"""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from math import log
from pathlib import Path
from typing import Any, Final

import msgspec

from producers.reference.models import LinearModel, Models, Tree, TreesModel, sigmoid, softmax
from producers.reference.text import field_features, text_features

HERE: Final = Path(__file__).parent / "data"
EPOCHS: Final = 40
RATE: Final = 0.3
DECAY: Final = 2e-4
"""L2 penalty per step: rare words do not get to vote loudly."""

MIN_SEEN: Final = 2
TREES: Final = 40
DEPTH: Final = 3
SHRINK: Final = 0.12
MIN_LEAF: Final = 12
CUTS: Final = 12

Row = dict[str, Any]


def read(name: str) -> list[Row]:
    """Return the rows of a data file."""
    return [msgspec.json.decode(line) for line in (HERE / name).read_bytes().splitlines()]


def row_features(row: Mapping[str, Any]) -> list[str]:
    """Return the features of a labelled message."""
    return text_features(row["text"]) + field_features(row.get("fields", {}))


def train_linear(rows: Sequence[Row]) -> LinearModel:
    """Fit a multinomial logistic regression by passes of gradient descent in the order of the rows."""
    labels = sorted({row["label"] for row in rows})
    examples = [(row_features(row), labels.index(row["label"])) for row in rows]
    seen = Counter(feature for features, _ in examples for feature in features)
    model = LinearModel(tuple(labels), (), {})
    bias = [0.0] * len(labels)
    weights = {feature: [0.0] * len(labels) for feature, times in sorted(seen.items()) if times >= MIN_SEEN}
    for epoch in range(EPOCHS):
        rate = RATE / (1 + 0.1 * epoch)
        for features, truth in examples:
            known = [weights[feature] for feature in features if feature in weights]
            chances = softmax([bias[k] + sum(w[k] for w in known) for k in range(len(labels))])
            for k, chance in enumerate(chances):
                step = rate * ((k == truth) - chance)
                bias[k] += step
                for w in known:
                    w[k] += step - rate * DECAY * w[k]
    return msgspec.structs.replace(
        model,
        bias=tuple(round(b, 4) for b in bias),
        weights={feature: tuple(round(w, 4) for w in row) for feature, row in weights.items()},
    )


def train_trees(rows: Sequence[Row]) -> TreesModel:
    """Fit boosted trees with logistic loss; leaves take Newton steps (Friedman 2001)."""
    names = tuple(rows[0]["fields"])
    points = [[row["fields"][name] for name in names] for row in rows]
    truth = [float(row["label"]) for row in rows]
    rate = sum(truth) / len(truth)
    bias = round(log(rate / (1 - rate)), 4)
    sums = [bias] * len(rows)
    cuts = [quantiles([point[k] for point in points]) for k in range(len(names))]
    trees: list[Tree] = []
    for _ in range(TREES):
        chances = [sigmoid(s) for s in sums]
        slopes = [t - p for t, p in zip(truth, chances, strict=True)]
        bends = [p * (1 - p) for p in chances]
        tree = Grower(points, slopes, bends, cuts).grow()
        sums = [s + tree.predict(point) for s, point in zip(sums, points, strict=True)]
        trees.append(tree)
    return TreesModel(names, bias, tuple(trees))


def quantiles(values: Sequence[float]) -> list[float]:
    """Return candidate cuts that part the values about evenly."""
    ordered = sorted(values)
    return sorted({ordered[len(ordered) * k // (CUTS + 1)] for k in range(1, CUTS + 1)})


class Grower:
    """Grows one tree, greedily, depth first."""

    def __init__(
        self,
        points: Sequence[Sequence[float]],
        slopes: Sequence[float],
        bends: Sequence[float],
        cuts: Sequence[Sequence[float]],
    ) -> None:
        self.points, self.slopes, self.bends, self.cuts = points, slopes, bends, cuts
        self.nodes: list[tuple[int, float, int, int, float]] = []

    def grow(self) -> Tree:
        """Return the tree over all points."""
        self._node(list(range(len(self.points))), DEPTH)
        feature, cut, left, right, value = zip(*self.nodes, strict=True)
        return Tree(feature, cut, left, right, value)

    def _node(self, rows: list[int], depth: int) -> int:
        at = len(self.nodes)
        self.nodes.append((-1, 0.0, 0, 0, round(SHRINK * self._slope(rows) / (self._bend(rows) + 1.0), 5)))
        best = self._split(rows) if depth else None
        if best is not None:
            feature, cut = best
            left = self._node([i for i in rows if self.points[i][feature] <= cut], depth - 1)
            right = self._node([i for i in rows if self.points[i][feature] > cut], depth - 1)
            self.nodes[at] = (feature, cut, left, right, 0.0)
        return at

    def _split(self, rows: list[int]) -> tuple[int, float] | None:
        best, best_gain = None, 1e-9
        before = self._worth(rows)
        for feature, cuts in enumerate(self.cuts):
            for cut in cuts:
                left = [i for i in rows if self.points[i][feature] <= cut]
                if not MIN_LEAF <= len(left) <= len(rows) - MIN_LEAF:
                    continue
                right = [i for i in rows if self.points[i][feature] > cut]
                gain = self._worth(left) + self._worth(right) - before
                if gain > best_gain:
                    best, best_gain = (feature, cut), gain
        return best

    def _worth(self, rows: Sequence[int]) -> float:
        return self._slope(rows) ** 2 / (self._bend(rows) + 1.0)

    def _slope(self, rows: Sequence[int]) -> float:
        return sum(self.slopes[i] for i in rows)

    def _bend(self, rows: Sequence[int]) -> float:
        return sum(self.bends[i] for i in rows)


def accuracies(models: Models) -> dict[str, float]:
    """Return the share of held-out rows that each model gets right."""
    seller, intent, score = (read(f"{name}_heldout.jsonl") for name in ("seller", "intent", "score"))
    return {
        "seller": share([models.seller.classify(r["text"], r["fields"]).label == r["label"] for r in seller]),
        "intent": share([models.intent.classify(r["text"]).label == r["label"] for r in intent]),
        "score": share([(models.score.score(r["fields"]) >= 0.5) == r["label"] for r in score]),
    }


def share(hits: Sequence[bool]) -> float:
    """Return the share of hits."""
    return sum(hits) / len(hits)


def main() -> None:
    """Train, write, and say how good the models are."""
    models = {
        "seller": train_linear(read("seller_train.jsonl")),
        "intent": train_linear(read("intent_train.jsonl")),
        "score": train_trees(read("score_train.jsonl")),
    }
    for name, model in models.items():
        (HERE / f"{name}_model.json").write_bytes(msgspec.json.encode(model) + b"\n")
    for name, accuracy in accuracies(Models.load()).items():
        sys.stdout.write(f"{name}: {accuracy:.3f} of the held-out rows are right\n")


if __name__ == "__main__":
    main()
