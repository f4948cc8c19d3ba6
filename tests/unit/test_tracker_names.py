"""Names that a tracker's client takes, as the config is read."""

from __future__ import annotations

import pytest
from tracked import config, needs

from components.config.errors import ConfigError


@pytest.mark.parametrize(
    ("tracker", "key", "why"),
    [
        *(("wandb", "project", name) for name in ("a/b", "a\\b", "a#b", "a?b", "a%b", "a:b")),
        *(("trackio", "project", name) for name in ("../../x", "my.model", "a b", "..", "x\n")),
        *(("trackio", "project", name) for name in ("registry-x", "model_artifacts", "x_run_artifact_links")),
        *(("trackio", "space_id", name) for name in ("a/b/c", "a/", "/b", "a--b", "a/b.git", "ü/b")),
    ],
)
def test_a_name_that_the_client_would_not_take(tracker: str, key: str, why: str) -> None:
    with pytest.raises(ConfigError) as told:
        config(name=tracker, **{key: why})
    assert str(told.value).startswith(f"trackers.0.{key}: {why!r} ")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("tracker", "key"),
    [
        ("wandb", "project"),
        ("wandb", "entity"),
        ("trackio", "project"),
        ("trackio", "space_id"),
        ("mlflow", "experiment"),
    ],
)
@pytest.mark.parametrize("name", ["", " "])
def test_an_empty_name(tracker: str, key: str, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^trackers\.0\.{key}: is empty\. Write a name, or leave the key out\.$"):
        config(name=tracker, **{key: name})


def test_a_name_that_is_too_long_for_wandb() -> None:
    with pytest.raises(ConfigError, match=r"^trackers\.0\.project: 129 characters are more than W&B takes\. Use 128"):
        config(name="wandb", project="x" * 129)


@pytest.mark.parametrize(
    ("tracker", "key", "name"),
    [
        ("wandb", "project", "x" * 128),
        ("wandb", "project", "my project (1.5 B) ü"),
        ("trackio", "project", "My-model_1ü"),
        ("trackio", "project", "artifacts"),
        ("trackio", "space_id", "lab/my.Space-1"),
        ("trackio", "space_id", "space"),
    ],
)
def test_a_name_that_is_taken(tracker: str, key: str, name: str) -> None:
    (found,) = config(name=tracker, **{key: name}).trackers
    assert getattr(found, key) == name


@pytest.mark.thorough
@needs("wandb")
def test_the_rule_is_that_of_wandb() -> None:
    import wandb

    for sign in map(chr, range(32, 127)):
        assert taken("wandb", f"a{sign}b") == passes(wandb.Settings, wandb.errors.UsageError, project=f"a{sign}b")


@pytest.mark.thorough
@needs("trackio")
def test_the_rule_is_that_of_trackio() -> None:
    from trackio.sqlite_storage import SQLiteStorage
    from trackio.utils import canonical_project_name

    for name in [f"a{sign}b" for sign in map(chr, range(32, 127))]:
        assert taken("trackio", name) == (canonical_project_name(name) == name)
    tables = ("system", "configs", "traces", "metrics", *SQLiteStorage._ARTIFACT_PARQUET_TABLES)
    for name in ("registry-", "registry-a", "registry", *tables, *(f"_{one}" for one in tables)):
        for whole in (name, f"a{name}"):
            assert taken("trackio", whole) == passes(SQLiteStorage.validate_project_name, ValueError, project=whole), (
                whole
            )


def taken(tracker: str, project: str) -> bool:
    return passes(config, ConfigError, name=tracker, project=project)


def passes(call: object, error: type[Exception], **values: str) -> bool:
    assert callable(call)
    try:
        call(**values)
    except error:
        return False
    return True
