"""Pushes of a real export to a stand-in of the hub, and everything for which the hub would refuse one."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi, ModelCard, constants, get_token

from components.export import CardOptions, ExportError, export, main
from components.export.hub import Hub, PushError, Target, ready
from components.policy.model import save
from components.run_config import parse
from components.store import LocalStore
from support.hub import Account, Repository
from support.hub_cards import RefusedError
from support.hub_server import serving
from support.models.tiny import make_policy
from support.published import CONFIG, history

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),  # of the hub's client, to itself
]

TOKEN = "hf_standinstandinstandin"
REPOSITORY = "lab/aligned"


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """The artifacts of a run whose policy is tiny and real."""
    folder = tmp_path_factory.mktemp("stored")
    policy = make_policy()
    policy.model.save_pretrained(folder / "base")
    policy.tokenizer.save_pretrained(folder / "base")
    store = LocalStore(str(folder / "wind_store"))
    base = store.put(folder / "base")
    return SimpleNamespace(
        **{"policy": base, "reference": base, "store_root": store.root, "config": parse(CONFIG), "seed": 3},
        **{"history": history(0.6, 0.7), "iteration": 2, "precision": "fp32"},
    )


@pytest.fixture
def hub(monkeypatch, tmp_path, stored):
    """A hub with one account; only the look-up of the finished run is replaced."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the stand-in has none
    monkeypatch.setattr("components.export.policy.runs.finished", lambda *_, **__: stored)
    monkeypatch.chdir(tmp_path)
    with serving() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        hub.accounts[TOKEN] = Account("alice", orgs=("lab",), member_of=("museum",))
        hub.cards["organisation/base"] = {"license": "apache-2.0"}
        yield hub


def contents(directory):
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def arrived(hub, branch="main"):
    files = hub.repositories[REPOSITORY].branches[branch]
    return {name: data for name, data in files.items() if name != ".gitattributes"}


def refused(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main(["WindFlow/7", "out", "--push", REPOSITORY, *words])
    said = str(ended.value.code)
    assert TOKEN not in said + "".join(capsys.readouterr())
    return said


def test_what_arrives_is_the_folder_byte_for_byte(hub, tmp_path, capsys):
    main(["WindFlow/7", "out", "--push", REPOSITORY, "--private"])
    assert arrived(hub) == contents(tmp_path / "out")
    assert {"README.md", "model.safetensors", "config.json", "tokenizer.json"} <= arrived(hub).keys()
    assert hub.repositories[REPOSITORY].private
    data = ModelCard(arrived(hub)["README.md"].decode()).data
    assert (data.base_model, data.license) == ("organisation/base", "apache-2.0")
    out, err = capsys.readouterr()
    sha = hub.sha(hub.repositories[REPOSITORY], "main")
    assert out.endswith(f"It is on the hub: {hub.address}/{REPOSITORY}/commit/{sha}\n")
    assert TOKEN not in out + err
    assert hub.repositories[REPOSITORY].commits["main"][1:] == ["The final policy of WindFlow/7"]


def test_another_push_is_a_commit_that_leaves_no_stale_weights(hub, tmp_path):
    files = {"model-00001-of-00002.safetensors": b"old", "model.safetensors.index.json": b"{}"}
    kept = {"notes.md": b"mine", "sub/model.safetensors": b"mine"}
    repository = Repository(private=False)
    repository.branches["main"] |= files | kept
    hub.repositories[REPOSITORY] = repository
    main(["WindFlow/7", "out", "--push", REPOSITORY])
    assert arrived(hub) == contents(tmp_path / "out") | kept
    assert len(repository.commits["main"]) == 2


def test_a_branch_is_made_and_main_stays(hub, tmp_path):
    main(["WindFlow/7", "out", "--push", REPOSITORY, "--revision", "tries/v2"])
    assert arrived(hub, "tries/v2") == contents(tmp_path / "out")
    assert arrived(hub) == {}


def test_an_unknown_base_is_not_named_in_the_front_matter(hub, tmp_path):
    hub.cards.clear()
    main(["WindFlow/7", "out", "--push", REPOSITORY])
    assert ModelCard.load(tmp_path / "out" / "README.md").data.base_model is None


def test_a_license_that_is_given_stands_in_the_card(hub, tmp_path):
    main(["WindFlow/7", "out", "--push", REPOSITORY, "--license", "mit"])
    assert ModelCard.load(tmp_path / "out" / "README.md").data.license == "mit"


def test_no_token(hub, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    assert refused(capsys).startswith("error: --push: there is no token of the hub.")
    assert hub.requests == []
    assert not (tmp_path / "out").exists()


def test_a_token_that_the_hub_does_not_know(hub, tmp_path, capsys):
    hub.accounts.clear()
    assert "the hub does not accept the token" in refused(capsys)
    assert hub.requests[-1] == "GET /api/whoami-v2"  # the client itself may have asked something before
    assert not (tmp_path / "out").exists()


def test_a_token_that_may_only_read(hub, tmp_path, capsys):
    hub.accounts[TOKEN].role = "read"
    assert "the token 'test' may only read" in refused(capsys)
    assert not (tmp_path / "out").exists()


def test_a_namespace_of_others(hub, tmp_path, capsys):
    hub.accounts[TOKEN].orgs = ()
    assert "may not write to lab. It belongs to: alice, museum." in refused(capsys)
    assert not (tmp_path / "out").exists()


def test_an_organisation_in_which_one_may_not_write(hub, tmp_path):
    with pytest.raises(PushError, match=r"the token may not write to museum/aligned .*rights to create a model"):
        ready(Target("museum/aligned")).push(tmp_path, "message")


@pytest.mark.parametrize(
    "name", ["aligned", "a/b/c", "lab/", "/aligned", "lab/a--b", "lab/x.git", "lab/Ünder", "", "-/x"]
)
def test_names_that_are_none(hub, name, capsys):
    with pytest.raises(SystemExit, match=r"^error: --push: .* Write ORG/NAME or USER/NAME"):
        main(["WindFlow/7", "out", f"--push={name}"])
    assert hub.requests == []


@pytest.mark.parametrize("branch", ["a..b", "a b", "", "/x", "x~1"])
def test_branches_that_are_none(hub, branch, capsys):
    assert refused(capsys, f"--revision={branch}").startswith("error: --revision: ")


def test_private_never_goes_to_a_public_repository(hub, tmp_path, capsys):
    hub.repositories[REPOSITORY] = Repository(private=False)
    assert refused(capsys, "--private").startswith(f"error: --private: {REPOSITORY} is there and is public.")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["--private", "--revision=x"])
def test_options_of_the_hub_alone(hub, option):
    with pytest.raises(SystemExit, match=r"is for the hub\. Name a repository with --push"):
        main(["WindFlow/7", "out", option])


def test_a_hub_that_cannot_be_reached(hub, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    said = refused(capsys)
    assert "cannot log in: http://127.0.0.1:9 cannot be reached" in said
    assert "HF_ENDPOINT" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "answer", [[1], "text", {}, None, b"<html>", {"name": "us", "orgs": 3}, {"name": "us", "auth": [1]}]
)
def test_what_answers_is_no_hub(hub, tmp_path, capsys, answer):
    hub.instead["GET /api/whoami-v2"] = answer
    said = refused(capsys)
    assert said.startswith(f"error: --push: {hub.address} is no hub: asked whose the token is, it answers what no hub")
    assert said.endswith("Correct HF_ENDPOINT, or unset it.")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("where", "refusal", "said"),
    [
        ("PUT /upload/", RefusedError(400, "broken storage"), "broken storage"),
        (".git/info/lfs", RefusedError(403, "quota of your plan"), "quota of your plan"),
        ("/commit/", RefusedError(409, "A commit has happened since."), "is being changed by somebody else"),
        ("/preupload/", RefusedError(413, "too large"), "a file is too large for the hub"),
    ],
)
def test_an_upload_that_fails_leaves_the_export_and_says_how_to_go_on(hub, tmp_path, capsys, where, refusal, said):
    hub.refuse[where] = refusal
    message = refused(capsys)
    assert said in message
    assert f"The export is whole in out: push it again with `hf upload {REPOSITORY} out`." in message
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert arrived(hub) == {}


def test_a_run_that_tells_nothing_is_not_pushed(hub, tmp_path, stored, monkeypatch):
    bare = SimpleNamespace(policy=stored.policy, store_root=stored.store_root)
    monkeypatch.setattr("components.export.policy.runs.finished", lambda *_, **__: bare)
    with pytest.raises(ExportError, match="gets no model card"):
        export("WindFlow/7", tmp_path / "out", card=CardOptions(hub=ready(Target(REPOSITORY))))


def test_the_real_hub(tmp_path):
    """One push to a private repository of the token's own, removed afterwards."""
    if not os.environ.get("WIND_TEST_PUSH") or not get_token():
        pytest.skip("needs a token of the hub and WIND_TEST_PUSH=1")
    owner = HfApi().whoami()["name"]
    hub = ready(Target(f"{owner}/wind-push-test", private=True))
    save(make_policy(), tmp_path / "policy")
    (tmp_path / "policy" / "README.md").write_text("---\nlibrary_name: transformers\n---\n# Test\n")
    try:
        assert "/commit/" in Hub(hub.target, hub.api, hub.token).push(tmp_path / "policy", "test")
    finally:
        hub.api.delete_repo(hub.target.repository)
