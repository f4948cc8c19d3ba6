"""Names as Kubernetes takes them, so that a config with another is refused before pods are."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # RFC 1123
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_METAFLOWS_VOLUMES = ("out", "dhsm")  # Argo's outputs, and shared memory
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_TOLERATION = ("key", "operator", "value", "effect")


def _is_name(name: str) -> str:
    if len(name) > 253 or not all(_LABEL.fullmatch(part) for part in name.split(".")):
        raise ValueError(
            f"{name!r} is no name of Kubernetes. Use lower-case letters, digits, '-' and '.', a letter or digit at "
            "both ends."
        )
    return name


def _is_project(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9_]{1,128}", name):
        raise ValueError(
            f"{name!r} is no name of a Metaflow project. Use 1 to 128 lower-case letters a to z, digits and '_'."
        )
    return name


def _require_key(key: str) -> None:
    prefix, slash, rest = key.rpartition("/")
    if slash:
        _is_name(prefix)
    if not rest or not _VALUE.fullmatch(rest):
        raise ValueError(
            f"{key!r} is no key of a label. Use at most 63 letters, digits, '-', '_' and '.', a letter or digit at "
            "both ends, perhaps behind a domain and '/'."
        )


def _require_value(key: str, value: str) -> None:
    if not _VALUE.fullmatch(value):
        raise ValueError(
            f"{key}: {value!r} is no value of a label. Use at most 63 letters, digits, '-', '_' and '.', a letter or "
            "digit at both ends."
        )


def _are_labels(labels: dict[str, str]) -> dict[str, str]:
    for key, value in labels.items():
        _require_key(key)
        _require_value(key, value)
    return labels


def _are_mounts(volumes: dict[str, str]) -> dict[str, str]:
    for claim, path in volumes.items():
        if not _LABEL.fullmatch(claim):  # Metaflow gives the volume the claim's name, and that knows no dots
            raise ValueError(
                f"{claim!r} cannot be mounted. Use a claim named by at most 63 lower-case letters, digits and '-'."
            )
        if not path.startswith("/") or ":" in path:
            raise ValueError(
                f"{claim}: {path!r} is no place to mount it. Write a path that begins with / and has no ':'."
            )
        if claim in _METAFLOWS_VOLUMES:
            raise ValueError(
                f"{claim!r} cannot be mounted: Metaflow gives a pod a volume of this name. Rename the claim."
            )
        if not _folder(path):
            raise ValueError(f"{claim}: {path!r} is the root of the image. Mount it in a folder, such as /{claim}.")
        if _folder(path) == "dev/shm":
            raise ValueError(f"{claim}: /dev/shm is the pod's shared memory. Set shared_memory, or mount it elsewhere.")
        if _folder(path) == "mnt/out":
            raise ValueError(f"{claim}: Argo mounts a volume of its own at /mnt/out. Mount it elsewhere.")
        if [_folder(other) for other in volumes.values()].count(_folder(path)) > 1:
            raise ValueError(f"{path} is given twice. Mount each claim in a folder of its own.")
    return volumes


def _folder(path: str) -> str:
    """A mounted path in one way of several to write it; nothing for the root."""
    return posixpath.normpath(path).strip("/")


def _is_toleration(toleration: Mapping[str, str]) -> Mapping[str, str]:
    if unknown := sorted(toleration.keys() - {*_TOLERATION}):
        raise ValueError(f"{unknown[0]!r} is unknown. Known keys: {', '.join(_TOLERATION)}.")
    key, operator = toleration.get("key", ""), toleration.get("operator", "Equal")
    if operator not in ("Equal", "Exists"):
        raise ValueError(f"operator: {operator!r} is unknown. Use Equal or Exists.")
    if operator == "Exists" and toleration.get("value"):
        raise ValueError("value: has no meaning where the operator is Exists. Remove it, or use Equal.")
    if not key and operator == "Equal":
        raise ValueError("key: is required. Name the taint, or tolerate all of them with `operator: Exists`.")
    if (effect := toleration.get("effect", _EFFECTS[0])) not in _EFFECTS:
        raise ValueError(f"effect: {effect!r} is unknown. Use one of {', '.join(_EFFECTS)}, or leave it out.")
    if key:
        _require_key(key)
        _require_value(key, toleration.get("value", ""))
    return toleration


def _is_image(image: str) -> str:
    if not image or re.search(r"\s", image):
        raise ValueError(f"{image!r} is no image. Write it as in registry.example.com/wind:1.")
    return image


Name = Annotated[str, AfterValidator(_is_name)]  # of most objects
Project = Annotated[str, AfterValidator(_is_project)]
Labels = Annotated[dict[str, str], AfterValidator(_are_labels)]
Mounts = Annotated[dict[str, str], AfterValidator(_are_mounts)]  # persistent volume claims and paths
Toleration = Annotated[dict[str, str], AfterValidator(_is_toleration)]
Image = Annotated[str, AfterValidator(_is_image)]
