"""The reference application's models, data, settings and traffic, without servers."""

import tomllib
from collections import Counter
from importlib.resources import files
from itertools import islice
from pathlib import Path

import msgspec
import pytest

from producers import traffic
from producers.reference import datasets, phrases, train
from producers.reference.models import DATA, LinearModel, ModelError, Models, TreesModel
from producers.reference.settings import SettingError, Settings

ROOT = Path(__file__).parents[3]


def labels(name: str) -> list[str]:
    return [str(row["label"]) for row in train.read(name)]


@pytest.fixture(scope="module")
def models() -> Models:
    return Models.load()


def test_shipped_data_is_what_the_generator_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "HERE", tmp_path)
    datasets.main()
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert written == {name: DATA.joinpath(name).read_bytes() for name in written}
    assert len(written) == 7


def test_shipped_models_are_what_training_makes(models: Models) -> None:
    assert train.train_linear(train.read("intent_train.jsonl")) == models.intent
    assert train.train_linear(train.read("seller_train.jsonl")) == models.seller
    assert train.train_trees(train.read("score_train.jsonl")) == models.score


def test_held_out_accuracy_is_far_from_guessing_and_from_perfect(models: Models) -> None:
    for name, accuracy in train.accuracies(models).items():
        found = labels(f"{name}_heldout.jsonl")
        guessing = max(Counter(found).values()) / len(found)
        assert guessing + 0.1 < accuracy < 0.95, name


@pytest.mark.parametrize("name", ["intent", "seller"])
def test_no_held_out_message_was_trained_on(name: str) -> None:
    trained = {row["text"] for row in train.read(f"{name}_train.jsonl")}
    assert not trained & {row["text"] for row in train.read(f"{name}_heldout.jsonl")}


@pytest.mark.parametrize(
    ("trained", "held_out"),
    [(phrases.INTENT_TRAIN, phrases.INTENT_HELDOUT), (phrases.SELLER_TRAIN, phrases.SELLER_HELDOUT)],
)
def test_held_out_phrases_are_others(trained: dict[str, list[str]], held_out: dict[str, list[str]]) -> None:
    assert trained.keys() == held_out.keys()
    assert not {phrase for pool in trained.values() for phrase in pool} & {
        p for pool in held_out.values() for p in pool
    }


def test_another_model_file_decides_otherwise(models: Models, tmp_path: Path) -> None:
    turned = msgspec.structs.replace(models.intent, labels=models.intent.labels[1:] + models.intent.labels[:1])
    path = tmp_path / "intent.json"
    path.write_bytes(msgspec.json.encode(turned))
    right, wrong = train.accuracies(models)["intent"], train.accuracies(Models.load(intent=path))["intent"]
    assert wrong < 0.2 < right


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"labels": 3}'])
def test_a_model_file_that_is_none_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=r"JORGE_SELLER_MODEL_FILE.*model\.json"):
        Models.load(seller=path)


def test_models_answer_the_same_each_time(models: Models) -> None:
    row = train.read("score_heldout.jsonl")[0]["fields"]
    assert models.score.score(row) == models.score.score(row)
    assert 0 < models.score.score(row) < 1
    assert models.intent.classify("") == models.intent.classify("")


def test_probabilities_sum_to_one_whatever_the_weights() -> None:
    model = LinearModel(("a", "b"), (1e6, -1e6), {"word": (0.0, 0.0)})
    assert sum(model.probabilities(["word", "unknown"])) == pytest.approx(1)
    assert TreesModel((), -1e6, ()).score({}) == 0
    assert TreesModel((), 1e6, ()).score({}) == 1


def test_settings_name_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="REFERENCE_CACHE_TTL_S"):
        Settings.read({"REFERENCE_CACHE_TTL_S": "-1"})
    with pytest.raises(SettingError, match="POSTGRES_PORT"):
        Settings.read({"POSTGRES_HOST": "db", "POSTGRES_PORT": "x"})
    with pytest.raises(SettingError, match="REDIS_URL_FILE"):
        Settings.read({"REDIS_URL_FILE": str(tmp_path / "missing")})


def test_settings_read_secrets_from_files(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cret\n")
    settings = Settings.read({"POSTGRES_HOST": "a,b", "POSTGRES_PASSWORD_FILE": str(tmp_path / "password")})
    assert settings.postgres is not None
    assert settings.postgres["password"] == "s3cret"
    assert settings.postgres["host"] == ["a", "b"]


def test_without_servers_named_there_are_none() -> None:
    assert Settings.read({}) == Settings()
    assert Settings.read({"REDIS_URL": "redis+sentinel://a/b"}).cache_url is None


def test_derived_gauges_are_ratios_of_what_the_application_emits() -> None:
    found = tomllib.loads(files("producers.reference").joinpath("derived.toml").read_text())["derived"]
    assert [entry["name"] for entry in found] == ["jorge_seller_bot_qualification_rate", "intent_decoder_accuracy"]
    measures = files("producers.reference").joinpath("measures.py").read_text()
    for entry in found:
        assert entry.keys() == {"name", "help", "numerator", "denominator", "window_s"}
        for selector in (entry["numerator"], entry["denominator"]):
            assert f'"{selector.partition("{")[0]}"' in measures


def test_traffic_asks_the_same_each_time_and_everything() -> None:
    first, again = list(islice(traffic.requests(), 3000)), list(islice(traffic.requests(), 3000))
    assert first == again
    paths = Counter(path.rpartition("/")[0] if path.startswith("/listing/") else path for _, path, _ in first)
    assert paths == {"/intent/decode": 1200, "/seller/qualify": 600, "/score": 600, "/listing": 600}
    for kind, path in traffic.PATHS.items():
        asked = [body for _, found, body in first if found == path][: len(traffic.rows(kind))]
        assert len(set(asked)) >= len(asked) - 1  # two writers may say the same


def test_the_clients_name_stays_in_the_reference_application() -> None:
    word = "jor" + "ge"
    library = [p for p in (ROOT / "producers").glob("*.py") if p.name != "api.py"]
    others = [p for folder in ("contract", "aggregator", "database", "exporter") for p in (ROOT / folder).rglob("*.py")]
    assert not [str(path) for path in library + others if word in path.read_text().lower()]
