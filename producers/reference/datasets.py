"""The labelled data of the reference application, made by hand-written phrases and a seeded generator.

`python -m producers.reference.datasets` writes data/*.jsonl and data/listings.json. Out: train and held-out rows.
Promise: the same bytes each time. Held-out messages come from phrases that training never saw, some labels are
wrong as people's labels are, and outcomes depend partly on what no field shows; so no model can be perfect.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from math import exp
from pathlib import Path
from typing import Any, Final

import msgspec

from producers.reference import phrases

HERE: Final = Path(__file__).parent / "data"
SEED: Final = 20240229
LISTINGS: Final = 200
LABEL_NOISE: Final = 0.05
"""Share of rows whose label a hurried annotator got wrong."""

SCORE_FEATURES: Final = (
    "budget_ratio", "days_since_contact", "messages_7d", "viewings_30d", "preapproved", "pages_viewed_7d",
    "reply_minutes", "timeline_months", "referred",
)  # fmt: skip

Row = dict[str, Any]


def mistype(text: str, chance: random.Random) -> str:
    """Return the text as typed on a phone: now and then a letter is lost, doubled or swapped."""
    if chance.random() > 0.35 or len(text) < 8:
        return text
    at = chance.randrange(1, len(text) - 2)
    kind = chance.randrange(3)
    if kind == 0:
        return text[:at] + text[at + 1 :]
    if kind == 1:
        return text[:at] + text[at] + text[at:]
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]


def fill(phrase: str, chance: random.Random) -> str:
    """Return a phrase with its {slots} filled."""
    for slot, choices in phrases.SLOTS.items():
        while "{" + slot + "}" in phrase:
            phrase = phrase.replace("{" + slot + "}", chance.choice(choices), 1)
    return phrase


def message(pool: Sequence[str], chance: random.Random) -> str:
    """Return a phrase in the words around it that people use."""
    parts = (chance.choice(phrases.OPENERS), fill(chance.choice(pool), chance), chance.choice(phrases.CLOSERS))
    return mistype(" ".join(part for part in parts if part), chance)


def intent_rows(pools: Mapping[str, Sequence[str]], count: int, chance: random.Random) -> list[Row]:
    """Return messages labelled with what their writer wants."""
    labels = list(pools)
    rows: list[Row] = []
    for number in range(count):
        meant = labels[number % len(labels)]
        shown = chance.choice(labels) if chance.random() < LABEL_NOISE else meant
        rows.append({"text": message(pools[meant], chance), "label": shown})
    chance.shuffle(rows)
    return rows


def seller_rows(pools: Mapping[str, Sequence[str]], count: int, chance: random.Random) -> list[Row]:
    """Return leads with the outcome that an agent's call gave: motivation, price and time, and some luck."""
    rows: list[Row] = []
    for _ in range(count):
        mood = chance.choices(("eager", "open", "curious"), (4, 3, 3))[0]
        fields: Row = {
            "asking_ratio": round(chance.lognormvariate({"eager": 0.0, "open": 0.05, "curious": 0.12}[mood], 0.09), 3),
            "timeline_months": chance.choices((1, 2, 4, 8, 14, 24), phrases.TIMELINES[mood])[0],
            "condition": chance.randint(1, 5),
            "has_agent": chance.random() < 0.15,
            "mortgage_late": chance.random() < (0.25 if mood == "eager" else 0.08),
        }
        points = {"eager": 1.6, "open": 0.2, "curious": -1.5}[mood]
        points += -9 * max(0.0, fields["asking_ratio"] - 1.03) - 0.09 * fields["timeline_months"]
        points += -2.5 * fields["has_agent"] + 0.9 * fields["mortgage_late"] + chance.gauss(0.4, 0.6)
        label = "qualified" if points > 0.35 else "nurture" if points > -1.2 else "disqualified"
        if chance.random() < LABEL_NOISE:
            label = chance.choice(phrases.OUTCOMES)
        rows.append({"text": message(pools[mood], chance), "fields": fields, "label": label})
    return rows


def score_rows(count: int, chance: random.Random) -> list[Row]:
    """Return buyer leads and whether they closed within 90 days, which is drawn from a probability."""
    rows: list[Row] = []
    for _ in range(count):
        fields = {
            "budget_ratio": round(chance.lognormvariate(0.0, 0.22), 3),
            "days_since_contact": float(min(60, int(chance.expovariate(1 / 9)))),
            "messages_7d": float(min(25, int(chance.expovariate(1 / 4)))),
            "viewings_30d": float(chance.choices(range(6), (40, 25, 15, 10, 6, 4))[0]),
            "preapproved": float(chance.random() < 0.45),
            "pages_viewed_7d": float(min(80, int(chance.expovariate(1 / 14)))),
            "reply_minutes": float(round(min(2880.0, chance.lognormvariate(4.0, 1.4)))),
            "timeline_months": float(chance.choice((1, 2, 3, 6, 9, 12, 18))),
            "referred": float(chance.random() < 0.2),
        }
        odds = -1.1 + 1.5 * fields["preapproved"] + 0.55 * fields["viewings_30d"] + 0.06 * fields["messages_7d"]
        odds += -0.07 * fields["days_since_contact"] - 0.13 * fields["timeline_months"] + 0.5 * fields["referred"]
        odds += -2.2 * abs(fields["budget_ratio"] - 1.0) + (0.9 if fields["reply_minutes"] < 45 else -0.3)
        rows.append({"fields": fields, "label": chance.random() < 1 / (1 + exp(-1.3 * odds))})
    return rows


def listing_rows(count: int, chance: random.Random) -> list[Row]:
    """Return houses of a town that does not exist."""
    rows: list[Row] = []
    for number in range(1, count + 1):
        bedrooms = chance.randint(1, 5)
        area = bedrooms * chance.randint(380, 620) + chance.randint(150, 600)
        district, per_foot = chance.choice(phrases.DISTRICTS)
        rows.append({
            "id": number,
            "address": f"{chance.randint(1, 240)} {chance.choice(phrases.STREETS)}",
            "district": district,
            "kind": chance.choice(("house", "townhouse", "condo", "duplex")),
            "bedrooms": bedrooms,
            "bathrooms": max(1, bedrooms - chance.randint(0, 2)),
            "area_sqft": area,
            "year_built": chance.randint(1924, 2023),
            "price_usd": round(area * per_foot * chance.uniform(0.85, 1.2), -3),
            "features": sorted(chance.sample(phrases.FEATURES, chance.randint(2, 6))),
        })  # fmt: skip
    return rows


def write(name: str, rows: Iterable[Row]) -> None:
    """Write one row a line."""
    (HERE / name).write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))


def main() -> None:
    """Write all data files."""
    HERE.mkdir(exist_ok=True)
    write("intent_train.jsonl", intent_rows(phrases.INTENT_TRAIN, 480, seeded(1)))
    write("intent_heldout.jsonl", intent_rows(phrases.INTENT_HELDOUT, 240, seeded(2)))
    write("seller_train.jsonl", seller_rows(phrases.SELLER_TRAIN, 500, seeded(3)))
    write("seller_heldout.jsonl", seller_rows(phrases.SELLER_HELDOUT, 240, seeded(4)))
    write("score_train.jsonl", score_rows(600, seeded(5)))
    write("score_heldout.jsonl", score_rows(240, seeded(6)))
    write("listings.jsonl", listing_rows(LISTINGS, seeded(7)))


def seeded(number: int) -> random.Random:
    """Return a generator that gives the same numbers each time."""
    return random.Random(SEED + number)  # noqa: S311 - data for a classifier, not secrets


if __name__ == "__main__":
    main()
