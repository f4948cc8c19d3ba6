"""Two iterations with LoRA through every stage: what is kept of them, and that they repeat themselves."""

from __future__ import annotations

import pytest
from safetensors.torch import load_file

from components.config.errors import ConfigError
from components.config.sections import TrainingConfig
from components.stages.context import open_workspace
from components.stages.in_process import Pipeline
from components.training import checks
from support.runs import smoke

FILES = {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"}


def adapted(algorithm="wind", precision="fp32", **training):
    """The smoke preset with LoRA."""
    return smoke(
        algorithm={"name": algorithm} | ({"eta": 10.0} if algorithm == "wind" else {}),
        policy={"precision": precision},
        training={"learning_rate": 1e-2, "lora": {"rank": 4, "alpha": 8}, **training},
    )


class Kept(Pipeline):
    """A whole run, and what each iteration's training gave."""

    def __init__(self, config, root):
        super().__init__(config, str(root), precision=config.policy.precision)
        self.root = str(root)
        self.trained = []
        self.started = self.start()
        self.history = self.run(self.started)

    def update(self, *args):
        update = super().update(*args)
        self.trained.append(update.trained)
        return update


RUNS = [
    ("wind", "fp32"),
    *(pytest.param(run, marks=pytest.mark.thorough) for run in (("wind", "bf16"), ("jbond", "fp32"))),
]


@pytest.fixture(scope="module", params=RUNS)
def run(request, tmp_path_factory):
    return Kept(adapted(*request.param), tmp_path_factory.mktemp("run") / "store")


def test_a_run_keeps_one_base_and_an_adapter_of_each_iteration(run):
    base, on_policy = run.started.policy, run.config.algorithm.name == "jbond"
    for trained in run.trained:
        assert {name: entry for name, entry in trained.policy.items() if name not in FILES} == base
        assert [*trained.policy] == sorted(base.keys() | FILES)
        with open_workspace(run.config, run.root, "train") as work:
            adapter = load_file(work.fetch(trained.policy) / "adapter" / "adapter_model.safetensors")
            kept = {path.name: load_file(path) for path in work.fetch(trained.optimizer).iterdir()}
        own = {name.removeprefix("base_model.model.").replace(".weight", ".default.weight") for name in adapter}
        assert {name.split(".", 1)[1] for name in kept.pop("optimizer.safetensors")} == own
        assert {path: {*found} for path, found in kept.items()} == ({"anchor.safetensors": own} if on_policy else {})
    first, second = (trained.policy["adapter/adapter_model.safetensors"] for trained in run.trained)
    assert first != second
    assert (run.history["kl"] != 0).all()


@pytest.mark.thorough
def test_a_second_run_is_identical_bit_for_bit(run, tmp_path):
    assert Kept(run.config, tmp_path / "store").trained == run.trained


def test_the_first_step_begins_at_a_ratio_of_one(tmp_path):
    """With all prompts in one step, log pi_theta - log pi_t is what rounding leaves of zero; later it is not."""
    config = adapted(batch_size=16, micro_batch_size=16)
    run = Kept(config, tmp_path / "store")
    first, second = (trained.figures["logp_change"] for trained in run.trained)
    assert abs(first) < 1e-5
    assert abs(second) < 1e-5  # the second iteration begins with the policy that its responses are from
    assert run.trained[0].figures["grad_norm"] > 1e-3


@pytest.mark.thorough
def test_gradient_checkpointing_and_8_bit_moments_go_with_it(tmp_path):
    pytest.importorskip("bitsandbytes", reason="needs bitsandbytes: pip install -r requirements-dev.txt")
    plain = Kept(adapted(optimizer="adamw_8bit"), tmp_path / "plain")
    less = Kept(adapted(optimizer="adamw_8bit", gradient_checkpointing=True), tmp_path / "less")
    for ours, theirs in zip(less.trained, plain.trained, strict=True):
        assert ours.figures == pytest.approx(theirs.figures, rel=1e-3, abs=1e-5)


@pytest.mark.thorough
def test_full_weights_need_no_adapter_and_make_none(tmp_path):
    run = Kept(adapted(lora=None, gradient_checkpointing=True), tmp_path / "store")
    assert all(trained.policy.keys() == run.started.policy.keys() for trained in run.trained)


def test_settings_that_cannot_be_followed_are_known_at_the_start(tmp_path, monkeypatch):
    config = adapted(lora={"rank": 4, "alpha": 8, "target_modules": ["query"]})
    with pytest.raises(ConfigError, match=r"^training\.lora\.target_modules: 'query' is no linear layer"):
        Pipeline(config, str(tmp_path / "store")).start()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"^training\.optimizer: adamw_8bit needs bitsandbytes, which is not inst"):
        checks.check(TrainingConfig(optimizer="adamw_8bit"))


@pytest.mark.thorough
@pytest.mark.parametrize("lora", [None, {"rank": 4, "alpha": 8}])
def test_policies_whose_files_are_all_large(tmp_path, monkeypatch, lora):
    """A real model's tokenizer is as large as its weights are here: a step sees such files as links into the store."""
    plain = Kept(adapted(lora=lora), tmp_path / "plain")
    monkeypatch.setattr("components.store.base.CHUNK", 1)
    large = Kept(adapted(lora=lora), tmp_path / "large")
    assert [trained.policy for trained in large.trained] == [trained.policy for trained in plain.trained]
