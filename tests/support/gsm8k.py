"""Made-up questions in GSM8K's form, and a folder of them as `hf download openai/gsm8k` leaves it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pandas as pd
import pytest
import yaml

EXAMPLE = Path(__file__).parents[2] / "examples" / "gsm8k"
needs_math = pytest.mark.skipif(
    importlib.util.find_spec("math_verify") is None, reason="needs math-verify: pip install -r requirements-math.txt"
)


def rows(names: list[str]) -> list[dict[str, str]]:
    """A question for each name, whose answer is solved step by step."""
    found = []
    for i, name in enumerate(names):
        total = (i + 2) * (i + 3)
        question = f"{name} fills {i + 2} boxes with {i + 3} apples each. How many apples is that?"
        answer = f"{name} has {i + 2}*{i + 3} = <<{i + 2}*{i + 3}={total}>>{total} apples.\n#### {total}"
        found.append({"question": question, "answer": answer})
    return found


TRAIN = rows(["Ada", "Bea", "Cid", "Dan", "Eva", "Fay", "Gus", "Hal", "Ida", "Jon", "Kim", "Leo"])
TEST = rows(["Mia", "Ned", "Ola", "Pia"])


def save(folder: Path) -> Path:
    """Parquet files of both splits in the subset `main`, a second subset, and the card that tells of them."""
    configs = []
    for subset in ("main", "socratic"):
        (folder / subset).mkdir(parents=True)
        files = []
        for split, records in (("train", TRAIN), ("test", TEST)):
            pd.DataFrame(records).to_parquet(folder / subset / f"{split}-00000-of-00001.parquet")
            files.append({"split": split, "path": f"{subset}/{split}-*"})
        configs.append({"config_name": subset, "data_files": files})
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': configs})}---\n# GSM8K\n")
    return folder
