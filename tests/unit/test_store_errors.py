"""Bad storage: each case is refused by `check`, or earlier, and says what is wrong, where, and how to fix it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from components.config.errors import StoreError
from components.store import open_store, s3_client
from support.faults.storage import AWS, CASES, CLOSED, ROOT, Place


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    def env(**values: str) -> None:
        for name in [*AWS, "AWS_PROFILE", "AWS_SESSION_TOKEN", "METAFLOW_S3_ENDPOINT_URL"]:
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            if value:
                monkeypatch.setenv(name, value)
        s3_client.client_for.cache_clear()

    with ExitStack() as cleanup:
        yield Place(env, tmp_path, cleanup)


@pytest.mark.thorough(but=["too little space"])
@pytest.mark.parametrize("case", CASES)
def test_bad_storage_is_refused_with_a_cure(case: str, place: Place) -> None:
    attempt, parts = CASES[case]
    with pytest.raises(StoreError) as caught:
        attempt(place)
    message = str(caught.value)
    for part in parts:
        assert part in message
    assert message.endswith(".")
    assert "None" not in message


@pytest.mark.thorough
@pytest.mark.s3
@pytest.mark.parametrize(
    ("case", "root", "env"),
    [
        ("unknown key", ROOT, {"AWS_ACCESS_KEY_ID": "nobody"}),
        ("wrong secret", ROOT, {"AWS_SECRET_ACCESS_KEY": "guess"}),
        ("missing bucket", "s3://no-such-bucket/store", {}),
        ("no access", "s3://wind/team/wind_store", {"AWS_ACCESS_KEY_ID": "other", "AWS_SECRET_ACCESS_KEY": "other"}),
    ],
)
def test_a_real_server_says_the_same(case: str, root: str, env: dict[str, str], radosgw_server, use_server) -> None:
    config = ["radosgw-admin", "-c", f"{radosgw_server.folder}/ceph.conf"]
    other = ["user", "create", "--uid=other", "--display-name=other", "--access-key=other", "--secret-key=other"]
    if "other" in env.values():
        subprocess.run([*config, *other], capture_output=True, check=True)
    use_server(radosgw_server, **env)
    with pytest.raises(StoreError) as caught:
        open_store(root).check()
    for part in CASES[case][1]:
        assert part.replace(ROOT, root) in str(caught.value)
    assert "None" not in str(caught.value)


def test_good_local_storage_passes_and_stays_empty(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "new" / "wind_store"))
    store.check(space=1)
    store.check()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert list(store.blobs()) == []


def test_check_does_not_wait_long(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three tries, and between them pauses of at most one and two seconds."""
    pauses: list[float] = []
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=pauses.append))
    with pytest.raises(StoreError):
        place.check(METAFLOW_S3_ENDPOINT_URL=CLOSED)
    assert len(pauses) == 2
    assert pauses[0] <= 1 and pauses[1] <= 2
