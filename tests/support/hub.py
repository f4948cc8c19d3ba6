"""A stand-in of the Hugging Face hub on loopback: its API for pushes of models, with what the hub would refuse.

Accounts, repositories with branches and commits, validated cards, large files by the LFS protocol; no Xet storage.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from support.hub_cards import NAME, RefusedError, checked_card

BRANCH = re.compile(r"[\w-]+(?:[./][\w-]+)*")
LARGE = (".safetensors", ".bin", ".gguf")
SMALLEST_LARGE = 10_000_000  # bytes from which any file is large


@dataclass
class Account:
    """Whom a token belongs to, and what it may do."""

    name: str
    role: str = "write"
    orgs: tuple[str, ...] = ()
    member_of: tuple[str, ...] = ()  # organisations that it belongs to without the right to write


@dataclass
class Repository:
    """Files of each branch, and commits on it."""

    private: bool
    branches: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {".gitattributes": b""}})
    commits: dict[str, list[str]] = field(default_factory=lambda: {"main": ["Initial commit"]})


@dataclass
class Hub:
    """The state of the hub."""

    address: str = ""
    accounts: dict[str, Account] = field(default_factory=dict)  # by token
    repositories: dict[str, Repository] = field(default_factory=dict)
    cards: dict[str, dict[str, Any]] = field(default_factory=dict)  # metadata of others' public models
    stored: dict[str, bytes] = field(default_factory=dict)  # large files by SHA-256
    requests: list[str] = field(default_factory=list)
    refuse: dict[str, RefusedError] = field(default_factory=dict)  # by a piece of "METHOD path"
    instead: dict[str, Any] = field(default_factory=dict)  # what is answered, bytes as they are, by the same

    def answer(self, method: str, path: str, token: str | None, body: bytes) -> Any:
        """What a request gives; raises RefusedError."""
        self.requests.append(f"{method} {path}")
        for piece, refusal in self.refuse.items():
            if piece in f"{method} {path}":
                raise refusal
        for piece, answer in self.instead.items():
            if piece in f"{method} {path}":
                return answer
        if path.startswith("/upload/"):  # a signed address: it needs no token
            return self.take(path.removeprefix("/upload/"), body)
        account = self.accounts.get(token) if token else None
        if token and account is None:
            raise RefusedError(401, "Invalid credentials in Authorization header")
        if path == "/api/validate-yaml":
            return self.validate(json.loads(body)["content"])
        for pattern, action in ROUTES:
            if found := re.fullmatch(pattern, f"{method} {path}"):
                return action(self, account, body, *map(unquote, found.groups()))
        raise RefusedError(404, f"no such route: {method} {path}")

    def whoami(self, account: Account | None, _: bytes) -> Any:
        if account is None:
            raise RefusedError(401, "Invalid username or password.")
        access = {"displayName": "test", "role": account.role}
        orgs = [{"name": name, "type": "org"} for name in (*account.orgs, *account.member_of)]
        return {"type": "user", "name": account.name, "orgs": orgs, "auth": {"accessToken": access}}

    def create(self, account: Account | None, body: bytes) -> Any:
        asked = json.loads(body)
        assert account is not None
        owner, name = asked.get("organization") or account.name, asked["name"]
        if not NAME.fullmatch(name) or name.endswith(".git"):
            raise RefusedError(400, f"Invalid repository name {name!r}")
        repository = f"{owner}/{name}"
        if owner not in (account.name, *account.orgs) or account.role != "write":
            raise RefusedError(403, f'You don\'t have the rights to create a model under the namespace "{owner}".')
        if repository in self.repositories:
            raise RefusedError(409, "You already created this model repo", more={"url": f"{self.address}/{repository}"})
        self.repositories[repository] = Repository(asked.get("visibility") == "private")
        return {"url": f"{self.address}/{repository}", "name": repository, "id": repository}

    def model(self, account: Account | None, _: bytes, repository: str, revision: str = "main") -> Any:
        if repository in self.cards:
            return {"id": repository, "private": False, "siblings": [], "tags": [], "cardData": self.cards[repository]}
        found = self.readable(account, repository)
        files = self.branch(found, revision)
        shown = [{"rfilename": name} for name in files]
        return {
            "id": repository,
            "private": found.private,
            "siblings": shown,
            "tags": [],
            "sha": self.sha(found, revision),
        }

    def tree(self, account: Account | None, _: bytes, repository: str, revision: str) -> Any:
        files = self.branch(self.readable(account, repository), revision)
        return [{"type": "file", "path": name, "size": len(data), "oid": git_sha(data)} for name, data in files.items()]

    def new_branch(self, account: Account | None, _: bytes, repository: str, name: str) -> Any:
        found = self.writable(account, repository)
        if not BRANCH.fullmatch(name):
            raise RefusedError(400, f"Invalid reference for a branch: {name}")
        if name in found.branches:
            raise RefusedError(409, "Reference already exists")
        found.branches[name] = dict(found.branches["main"])
        found.commits[name] = list(found.commits["main"])
        return {}

    def preupload(self, account: Account | None, body: bytes, repository: str, revision: str) -> Any:
        files = self.branch(self.writable(account, repository), revision)
        answers = []
        for asked in json.loads(body)["files"]:
            large = asked["path"].endswith(LARGE) or asked["size"] >= SMALLEST_LARGE
            there = files.get(asked["path"])
            oid = None if there is None else hashlib.sha256(there).hexdigest() if large else git_sha(there)
            answers.append(
                {
                    "path": asked["path"],
                    "uploadMode": "lfs" if large else "regular",
                    "shouldIgnore": False,
                    "oid": oid,
                }
            )
        return {"files": answers}

    def batch(self, account: Account | None, body: bytes, repository: str) -> Any:
        self.writable(account, repository)
        asked = json.loads(body)
        assert asked["operation"] == "upload"
        assert asked["hash_algo"] == "sha256"
        objects = []
        for one in asked["objects"]:
            upload = {"href": f"{self.address}/upload/{one['oid']}"}
            objects.append(one if one["oid"] in self.stored else {**one, "actions": {"upload": upload}})
        return {"transfer": "basic", "objects": objects}

    def take(self, oid: str, body: bytes) -> Any:
        if hashlib.sha256(body).hexdigest() != oid:
            raise RefusedError(400, "the content is not what was announced")
        self.stored[oid] = body
        return {}

    def commit(self, account: Account | None, body: bytes, repository: str, revision: str) -> Any:
        found = self.writable(account, repository)
        files = dict(self.branch(found, revision))
        header, *operations = (json.loads(line) for line in body.splitlines())
        assert header["key"] == "header"
        for operation in operations:
            self.apply(files, operation["key"], operation["value"])
        self.validate(files["README.md"].decode())
        found.branches[revision] = files
        found.commits[revision].append(header["value"]["summary"])
        sha = self.sha(found, revision)
        return {"success": True, "commitUrl": f"{self.address}/{repository}/commit/{sha}", "commitOid": sha}

    def apply(self, files: dict[str, bytes], key: str, value: dict[str, Any]) -> None:
        """One operation of a commit."""
        if key == "file":
            assert value["encoding"] == "base64"
            files[value["path"]] = base64.b64decode(value["content"], validate=True)
        elif key == "lfsFile":
            if value["oid"] not in self.stored:
                raise RefusedError(400, f"LFS pointer pointed to a file that does not exist: {value['path']}")
            files[value["path"]] = self.stored[value["oid"]]
            assert len(files[value["path"]]) == value["size"]
        else:
            assert key == "deletedFile"
            del files[value["path"]]

    def validate(self, content: str) -> Any:
        """The metadata of a card, as the hub checks them."""
        return checked_card(content)

    def readable(self, account: Account | None, repository: str) -> Repository:
        found = self.repositories.get(repository)
        owner = repository.partition("/")[0]
        if found is None or (found.private and (account is None or owner not in (account.name, *account.orgs))):
            raise RefusedError(404 if account else 401, "Repository not found", "RepoNotFound")
        return found

    def writable(self, account: Account | None, repository: str) -> Repository:
        found = self.readable(account, repository)
        assert account is not None
        if repository.partition("/")[0] not in (account.name, *account.orgs) or account.role != "write":
            raise RefusedError(403, "Forbidden: pass a token with write access.")
        return found

    def branch(self, found: Repository, revision: str) -> dict[str, bytes]:
        if revision not in found.branches:
            raise RefusedError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return found.branches[revision]

    def sha(self, found: Repository, revision: str) -> str:
        return hashlib.sha1(json.dumps(found.commits[revision]).encode()).hexdigest()


def git_sha(data: bytes) -> str:
    """As git names a blob."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


MODEL = "/api/models/([^/]+/[^/]+)"
ROUTES = (
    ("GET /api/whoami-v2", Hub.whoami),
    ("POST /api/repos/create", Hub.create),
    (f"GET {MODEL}", Hub.model),
    (f"GET {MODEL}/revision/([^/]+)", Hub.model),
    (f"GET {MODEL}/tree/([^/]+)", Hub.tree),
    (f"POST {MODEL}/branch/([^/]+)", Hub.new_branch),
    (f"POST {MODEL}/preupload/([^/]+)", Hub.preupload),
    (f"POST {MODEL}/commit/([^/]+)", Hub.commit),
    (r"POST /([^/]+/[^/]+)\.git/info/lfs/objects/batch", Hub.batch),
)
