"""`wind plan`: what it says of presets and real runs, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from components.config.errors import ConfigError
from components.plan import table
from components.plan.__main__ import main
from components.plan.costs import Lengths, Shape
from components.plan.memory import ACTIVATIONS, BF16, FP32, stored
from components.plan.models import PlanError, sizes
from components.reporting.text import digits
from components.run_config import RunConfig, checked, parse
from components.stages.in_process import Pipeline
from support.models.words import SHAPE
from support.plans import LENGTHS, SMALL, config

# Of the library's own code, when it first imports DeBERTa
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

PRESETS = Path(__file__).parents[2] / "flows" / "configs"


@pytest.fixture
def own(tmp_path, make_model, make_tokenizer, monkeypatch):
    """A working directory with a model whose weights outweigh everything else, prompts and a judge."""
    monkeypatch.chdir(tmp_path)
    model = make_model(hidden_size=128, intermediate_size=256, num_hidden_layers=4)
    model.save_pretrained("model")
    make_tokenizer("{{ messages[0]['content'] }}").save_pretrained("model")
    Path("prompts.jsonl").write_text("".join(f'{{"prompt": "w{i} w7 w8"}}\n' for i in range(6, 30)))
    Path("judge.py").write_text("def score(response, prompt):\n    return float(len(response))\n")
    return model


OWN = {
    "iterations": 1,
    "policy": {"model": "model"},
    "prompts": {"train": "prompts.jsonl", "per_iteration": 8, "held_out": 4, "shards": 1},
    "generation": {"responses": 4, "max_new_tokens": 8},
    "training": {"batch_size": 4, "micro_batch_size": 2},
    "judge": {"name": "verifier", "function": "judge.py:score"},
    # On busy cores, threads that wait for each other make tiny models ten times slower.
    "resources": {kind: {"cpu": 1} for kind in ("start", "generate", "score", "train", "evaluate")},
}


@pytest.mark.thorough(but=["training0"])
@pytest.mark.parametrize("training", [{}, {"optimizer": "rmsprop"}, {"lora": {"rank": 64}}])
def test_a_real_run_stores_as_many_bytes(own, tmp_path, training):
    run = RunConfig.model_validate(parse(yaml.safe_dump({**OWN, "training": {**OWN["training"], **training}})))
    models = sizes(run, {})
    assert models.policy.parameters == own.num_parameters()
    pipeline = Pipeline(run, str(tmp_path / "store"))
    started = pipeline.start()
    trained = pipeline.update(started, started.policy, None, 1).trained
    kept = (
        {**trained.policy, **trained.optimizer}
        if not training.get("lora")
        else {
            name: entry for name, entry in {**trained.policy, **trained.optimizer}.items() if name not in started.policy
        }
    )
    weights = sum(entry["size"] for name, entry in kept.items() if name.endswith(".safetensors"))
    expected = stored(run, models, Lengths(3, 8))
    assert weights == pytest.approx(expected.iteration, rel=0.05)
    everything = sum(path.stat().st_size for path in (tmp_path / "store").rglob("*") if path.is_file())
    assert everything == pytest.approx(expected.total(1), rel=0.1)


@pytest.mark.parametrize("number", [BF16, FP32])
@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_activations_that_a_layer_keeps(make_model, name, number):
    """Counts the bytes that autograd keeps of models of 2 and of 4 layers; half their difference is a layer's."""
    import torch

    def kept(layers):
        model = make_model(
            name, hidden_size=64, intermediate_size=224, num_hidden_layers=layers, max_position_embeddings=256
        ).base_model
        weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        sizes = {}

        def pack(tensor):
            storage = tensor.untyped_storage()
            is_cast = tensor.ndim == 2 and max(tensor.shape) <= 224
            if storage.data_ptr() not in weights and not is_cast:
                sizes[storage.data_ptr()] = (storage.nbytes(), tensor)
            return tensor

        ids = torch.zeros((2, 250), dtype=torch.int64)
        with (
            torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16, enabled=number == BF16),
        ):
            output = model(input_ids=ids, use_cache=False)
        del output
        return sum(size for size, _ in sizes.values())

    hidden, intermediate = ACTIVATIONS[number]
    assert (kept(4) - kept(2)) / 2 / 500 == pytest.approx(hidden * 64 + intermediate * 224, rel=0.05)


def run_command(capsys, *arguments):
    main([str(argument) for argument in arguments])
    return capsys.readouterr().out


def test_the_command(own, capsys):
    Path("run.yaml").write_text(yaml.safe_dump(OWN))
    text = run_command(capsys, "run.yaml", "--price", "4", "--gpu", "A100")
    assert text.startswith(f"policy: {own.num_parameters() / 1e9:.3g} B parameters\n1 iterations of 8 prompts")
    assert "step" in text
    assert "A100 hours" in text
    assert "cost: 0.00 USD at 4 USD an hour" in text
    assert "FLOP = 2 x parameters x tokens" in text
    assert "312 TFLOP/s" in text


def test_the_cost_is_hours_times_price(tmp_path, capsys):
    (tmp_path / "run.yaml").write_text(SMALL)
    options = ["--parameters", "1e12", "--prompt-tokens", "10", "--response-tokens", "20", "--price", "1e4"]
    text = run_command(capsys, tmp_path / "run.yaml", *options)
    models = sizes(config(), {"nowhere": 1e12})
    hours = sum(table.gpu_hours(config(), models, LENGTHS, table.GPUS["H100"]).values())
    assert f"cost: {1e4 * hours:,.2f} USD at 10000 USD an hour" in text
    assert 1e4 * hours > 5000
    assert "does not fit into the 80 GB of one H100: start, generate, score, train, evaluate" in text


@pytest.mark.parametrize("name", ["llama3_8b_wind", "llama3_8b_sppo", "qwen_24gb", "gpu_80gb"])
def test_presets_can_be_planned(name, capsys):
    path = PRESETS / f"{name}.yaml"
    judge = parse(path.read_text())["judge"]["model"]
    text = run_command(capsys, path, "--parameters", "8e9", "--parameters", f"{judge}=5e8", "--gpu", "H200")
    assert text.startswith("policy: 8 B parameters")
    assert "does not fit" not in text


def test_a_comparison_is_the_sum_of_its_runs(tmp_path, capsys):
    compare = {"seeds": [0, 1], "budget": {"samples": 8000}, "arms": {"wind": {}, "half": {"share": 0.5}}}
    (tmp_path / "one.yaml").write_text(yaml.safe_dump({**yaml.safe_load(SMALL), "compare": compare}))
    text = run_command(capsys, tmp_path / "one.yaml", "--parameters", "1e12", "--price", "1")
    for title, n in [("wind, seed 0", "1,000"), ("wind, seed 1", "1,000"), ("half, seed 1", "500")]:
        assert f"# {title}\npolicy: 1,000 B parameters\n2 iterations of {n} prompts" in text
    arms = {1000: 2, 500: 2}
    lengths = Lengths(200, 15)
    hours, disk, start = 0.0, 0.0, 0.0
    for n, times in arms.items():
        run = config(prompts={"per_iteration": n})
        models = sizes(run, {"nowhere": 1e12})
        by_step = table.gpu_hours(run, models, lengths, table.GPUS["H100"])
        start, kept = by_step.pop("start"), stored(run, models, lengths)
        hours += times * sum(by_step.values())
        disk += times * 2 * kept.iteration
    hours += start  # which all runs have in common, and what it stores
    assert f"cost: {hours:,.2f} USD" in text
    assert f"all runs: {digits(hours)} H100 hours, {digits((disk + kept.start) / 1e9)} GB stored" in text
    assert f"start, once for all runs: {digits(start)} H100 hours, " in text
    assert "\nstart  " not in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("demo: {}", "demo: makes a policy that trains in minutes"),
        (
            SMALL + "compare: {budget: {seconds: 60}, arms: {wind: {}}}",
            "compare.budget.seconds: says what the run takes",
        ),
        (SMALL + "sed: 1", "sed: unknown key. Did you mean 'seed'?"),
    ],
)
def test_configs_without_a_plan(tmp_path, text, message):
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(SystemExit, match=f"error: {message}"):
        main([str(tmp_path / "run.yaml"), "--parameters", "1e9"])


def test_no_config(tmp_path):
    with pytest.raises(SystemExit, match=r"none\.yaml: cannot be read"):
        main([str(tmp_path / "none.yaml")])


def test_a_model_that_cannot_be_reached(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(PlanError, match=r"policy\.model: the config\.json of nowhere.*--parameters nowhere=8\.0e9"):
        sizes(config(), {})
    judged = config(judge={"name": "pairrm", "model": "rm"})
    with pytest.raises(PlanError, match=r"judge\.model: the config\.json of rm.*--parameters rm=8\.0e9"):
        sizes(judged, {"nowhere": 1e9})
    with pytest.raises(PlanError, match=r"--parameters other: the config has no such model\. It has nowhere, rm"):
        sizes(judged, {"other": 1e9})


@pytest.mark.parametrize("given", ["8B", "nowhere=", "a=b=c"])
def test_a_size_that_is_no_number(tmp_path, given):
    (tmp_path / "run.yaml").write_text(SMALL)
    with pytest.raises(SystemExit, match=f"--parameters {given}: .* is no number"):
        main([str(tmp_path / "run.yaml"), "--parameters", given])


def test_sizes_come_from_the_config_alone(tmp_path, monkeypatch):
    """Llama: 2 layers of 2 x 16 x 16 + 2 x 16 x 8 + 3 x 16 x 32 + 2 x 16, a norm of 16, 60 x 16 embedded; then as much
    for the head of a causal LM, 16 for one label. DeBERTa: 2 layers of 3 x 272 + 304 + 544 + 560, 32 x 16 embedded, 16
    relative positions, 2 norms of 32; PairRM's head has 2 x 16 x 16 + 16 + 17."""
    from transformers import DebertaV2Config, LlamaConfig

    monkeypatch.chdir(tmp_path)
    LlamaConfig(**SHAPE, num_labels=1, dtype="float32").save_pretrained("llama")
    deberta = DebertaV2Config(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        type_vocab_size=0,
        relative_attention=True,
        position_biased_input=False,
        pos_att_type=["p2c", "c2p"],
        position_buckets=8,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
    )
    deberta.n_tasks = 1
    deberta.save_pretrained("pairrm")
    kinds = {"reward_model": "llama", "llm_judge": "llama", "pairrm": "pairrm"}
    members = [{"name": name, "model": model} for name, model in kinds.items()]
    found = sizes(config(policy={"model": "llama"}, judge={"name": "ensemble", "judges": members}), {})
    assert found.policy == Shape(parameters=6608, layers=2, hidden=16, intermediate=32, kv=16)
    assert found.published == FP32
    assert [shape.parameters for _, shape in found.judges] == [5664, 6608, 5825]


@pytest.mark.thorough
def test_lora_of_a_real_model(own):
    """Rank 4 on q and v of four layers, 128 to 128 and 128 to 64: 4 x 4 x (256 + 192)."""
    values = {**OWN, "training": {**OWN["training"], "lora": {"rank": 4, "target_modules": ["q_proj", "v_proj"]}}}
    assert sizes(checked(values), {}).adapter == 7168
    values["training"]["lora"]["target_modules"] = ["qproj"]
    with pytest.raises(ConfigError, match="'qproj' is no linear layer"):
        sizes(checked(values), {})
