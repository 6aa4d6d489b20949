"""The models that serve: a linear classifier over features, and boosted trees over numbers.

In: JSON files written by train.py. Out: label with confidence, or a probability. Pure Python, no state, no chance.
"""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from math import exp
from pathlib import Path
from typing import Final, Self, TypeVar

import msgspec

from producers.reference.text import field_features, text_features

DATA: Final = files("producers.reference").joinpath("data")


class ModelError(ValueError):
    """A model file that cannot be served; the text names the file."""


class Decision(msgspec.Struct, frozen=True):
    """What a classifier found, and how sure it is (0 to 1)."""

    label: str
    confidence: float


class LinearModel(msgspec.Struct, frozen=True):
    """Multinomial logistic regression: one bias and one weight per feature for each label."""

    labels: tuple[str, ...]
    bias: tuple[float, ...]
    weights: dict[str, tuple[float, ...]]

    def classify(self, text: str, fields: Mapping[str, float | bool] | None = None) -> Decision:
        """Return the likeliest label of a message."""
        features = text_features(text) + field_features(fields or {})
        chances = self.probabilities(features)
        best = max(range(len(chances)), key=chances.__getitem__)
        return Decision(self.labels[best], chances[best])

    def probabilities(self, features: Sequence[str]) -> list[float]:
        """Return the probability of each label, in the order of `labels`."""
        sums = list(self.bias)
        for feature in features:
            row = self.weights.get(feature)
            if row is not None:
                sums = [s + w for s, w in zip(sums, row, strict=True)]
        return softmax(sums)


class Tree(msgspec.Struct, frozen=True):
    """One regression tree in arrays; node i goes left when x[feature[i]] <= cut[i]; feature -1 is a leaf."""

    feature: tuple[int, ...]
    cut: tuple[float, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]
    value: tuple[float, ...]

    def predict(self, row: Sequence[float]) -> float:
        """Return the value of the leaf that the row falls to."""
        node = 0
        while (feature := self.feature[node]) >= 0:
            node = self.left[node] if row[feature] <= self.cut[node] else self.right[node]
        return self.value[node]


class TreesModel(msgspec.Struct, frozen=True):
    """Gradient-boosted trees with logistic loss."""

    features: tuple[str, ...]
    bias: float
    trees: tuple[Tree, ...]

    def score(self, fields: Mapping[str, float]) -> float:
        """Return the probability of the positive class; every feature must be given."""
        row = [fields[name] for name in self.features]
        return sigmoid(self.bias + sum(tree.predict(row) for tree in self.trees))


def softmax(sums: Sequence[float]) -> list[float]:
    """Return probabilities from log-odds, without overflow."""
    top = max(sums)
    powers = [exp(s - top) for s in sums]
    total = sum(powers)
    return [p / total for p in powers]


def sigmoid(x: float) -> float:
    """Return the logistic function, without overflow."""
    return 1 / (1 + exp(-x)) if x >= 0 else exp(x) / (1 + exp(x))


Model = TypeVar("Model", LinearModel, TreesModel)


class Models(msgspec.Struct, frozen=True):
    """All models of the reference application."""

    seller: LinearModel
    intent: LinearModel
    score: TreesModel

    @classmethod
    def load(cls, seller: Path | None = None, intent: Path | None = None, score: Path | None = None) -> Self:
        """Read the models; a path that is None means the shipped file. ModelError names a file that is none."""
        return cls(
            seller=_load(LinearModel, "JORGE_SELLER_MODEL_FILE", seller, "seller_model.json"),
            intent=_load(LinearModel, "INTENT_MODEL_FILE", intent, "intent_model.json"),
            score=_load(TreesModel, "SCORE_MODEL_FILE", score, "score_model.json"),
        )


def _load(kind: type[Model], setting: str, path: Path | None, shipped: str) -> Model:
    try:
        return msgspec.json.decode((path or DATA.joinpath(shipped)).read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError) as error:
        raise ModelError(f"{setting}: {path or shipped}: {error}") from error
