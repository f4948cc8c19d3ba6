"""The laboratory's config: presets, defaults, and in which words the rest is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from components.bandit.config import LabConfig, cautions, parse
from components.bandit.games import PreferenceMatrix, RewardOrder
from components.bandit.methods import METHODS, Bond, Wind
from components.bandit.settings import SETTINGS, Matrix, Reward
from components.config.errors import ConfigError

PRESETS = sorted((Path(__file__).parents[2] / "flows" / "configs" / "bandit").rglob("*.yaml"))
ROCK_PAPER_SCISSORS = "[[0.5, 0, 1], [1, 0.5, 0], [0, 1, 0.5]]"


def config(text):
    return LabConfig.model_validate(parse(text))


def refusal(text):
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return str(caught.value)


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_every_preset_parses_and_its_bandits_can_be_built(path):
    lab = config(path.read_text(encoding="utf-8"))
    for setting in lab.settings.values():
        bandit = setting.bandit(np.random.default_rng(0))
        assert bandit.log_ref.shape == bandit.game.shape
        np.testing.assert_allclose(np.exp(bandit.log_ref).sum(1), 1, rtol=0, atol=1e-12)


def test_the_presets_that_users_start_from_exist():
    assert {"laboratory", "smoke", "rock_paper_scissors"} <= {path.stem for path in PRESETS}


@pytest.mark.parametrize("text", ["{}", *(path.read_text(encoding="utf-8") for path in PRESETS)])
def test_a_filled_config_is_a_fixed_point(text):
    filled = parse(text)
    assert parse(yaml.safe_dump(filled, sort_keys=False)) == filled


def test_defaults():
    lab = config("{}")
    assert list(lab.methods) == list(METHODS) == ["wind", "bond", "self_play", "nash_md", "extragradient"]
    assert lab.methods["wind"] == Wind(eta=1.0)
    assert lab.settings == {"reward": Reward()}


def test_a_label_may_name_the_method_or_stand_for_another():
    methods = config("methods: {bond: {N: 8}, mixed: {name: bond, alpha: 0.5}}").methods
    assert methods == {"bond": Bond(N=8), "mixed": Bond(alpha=0.5)}


def test_a_matrix_is_written_down():
    lab = config(
        "methods: {wind: {}}\n"
        f"settings: {{rps: {{name: matrix, preference: {ROCK_PAPER_SCISSORS}, reference: [2, 1, 1], prompts: 2}}}}"
    )
    bandit = lab.settings["rps"].bandit(np.random.default_rng(0))
    np.testing.assert_allclose(np.exp(bandit.log_ref), [[0.5, 0.25, 0.25]] * 2, rtol=0, atol=1e-15)
    # Against the reference, rock wins 0.25 (tie) + 0.25 (scissors).
    np.testing.assert_allclose(bandit.game.win_rate(bandit.log_ref)[0], [0.5, 0.625, 0.375], rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "matrix"])
def test_random_bandits_have_their_shape_and_come_from_their_seed(name):
    setting = SETTINGS[name](prompts=3, responses=7)
    one, same, other = (setting.bandit(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one.game.shape == one.log_ref.shape == (3, 7)
    assert np.array_equal(one.log_ref, same.log_ref)
    assert np.array_equal(one.game.win_rate(one.log_ref), same.game.win_rate(same.log_ref))
    assert not np.array_equal(one.game.win_rate(one.log_ref), other.game.win_rate(one.log_ref))
    assert isinstance(one.game, RewardOrder if SETTINGS[name].ordered else PreferenceMatrix)
    assert (one.rewards is not None) == (name in {"reward", "bradley_terry"})


def test_levels_are_equally_frequent():
    rewards = Reward(prompts=2, responses=12, levels=4).bandit(np.random.default_rng(0)).rewards
    for row in rewards:
        assert np.unique(row, return_counts=True)[1].tolist() == [3, 3, 3, 3]


def test_noise_and_cycles_are_not_transitive():
    """Some three responses beat each other in a circle."""
    for name in ("noise", "cyclic"):
        beats = SETTINGS[name](prompts=1, responses=30).bandit(np.random.default_rng(0)).game.preference[0] > 0.5
        assert (np.linalg.matrix_power(beats.astype(int), 3).diagonal() > 0).any()


def test_bradley_terry_by_hand():
    """sigmoid of the difference of rewards: log-odds are the difference over the temperature."""
    bandit = SETTINGS["bradley_terry"](prompts=1, responses=5, temperature=2.0).bandit(np.random.default_rng(0))
    preference = bandit.game.preference[0]
    odds = np.log(preference / (1 - preference))
    np.testing.assert_allclose(odds, (bandit.rewards.T - bandit.rewards) / 2, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("seed: 1", "seed: unknown key. Did you mean 'seeds'?"),
        ("seeds: []", "seeds: [] cannot be used. List should have at least 1 item after validation, not 0."),
        ("seeds: [1, 2, 1]", "seeds: [1, 2, 1] names a seed twice. Remove the repetition."),
        ("iterations: 0", "iterations: 0 cannot be used. Input should be greater than or equal to 1."),
        ("iterations: '9'", "iterations: '9' cannot be used. Input should be a valid integer."),
        ("methods: {}", "methods: {} cannot be used. Dictionary should have at least 1 item after validation, not 0."),
        ("methods: {wind}", "methods.wind: None cannot be used. Write a mapping of settings, or leave it out."),
        (
            "methods: {wind: {name: [wind]}}",
            "methods.wind: there is no ['wind']. Give a `name`, one of: wind, bond, self_play, nash_md, extragradient.",
        ),
        (
            "methods: {wnd: {}}",
            "methods.wnd: there is no 'wnd'. Give a `name`, one of: wind, bond, self_play, nash_md, extragradient.",
        ),
        ("methods: {wind: {etta: 1}}", "methods.wind.etta: unknown key. Did you mean 'eta'?"),
        ("methods: {wind: {eta: 0}}", "methods.wind.eta: 0 cannot be used. Input should be greater than 0."),
        (
            "methods: {x: {name: bond, N: 1}}",
            "methods.x.N: 1 cannot be used. Input should be greater than or equal to 2.",
        ),
        ("methods: {bond: {alpha: 1}}", "methods.bond.alpha: 1 cannot be used. Input should be less than 1."),
        (
            "methods: {wind: {}, nash_md: {eta: 20}}",
            "methods.nash_md: in settings.reward, eta = 20 times beta = 0.1 exceeds 1. "
            "Lower eta to 10 or less, or lower beta.",
        ),
        (
            "methods: {extragradient: {eta: 4}}\nsettings: {r: {name: reward, beta: 0.5}}",
            "methods.extragradient: in settings.r, eta = 4 times beta = 0.5 exceeds 1. "
            "Lower eta to 2 or less, or lower beta.",
        ),
        (
            "settings: {rewards: {}}",
            "settings.rewards: there is no 'rewards'. "
            "Give a `name`, one of: reward, bradley_terry, cyclic, noise, matrix.",
        ),
        (
            "settings: {reward: {beta: 0}}",
            "settings.reward.beta: 0 cannot be used. Input should be greater than or equal to 0.000001.",
        ),
        ("settings: {reward: {level: 3}}", "settings.reward.level: unknown key. Did you mean 'levels'?"),
        (
            "settings: {cyclic: {}}",
            "settings.cyclic: bond cannot play it, best-of-N needs a reward order and this is a preference matrix. "
            "Name the others: `methods: [wind, self_play, nash_md, extragradient]`.",
        ),
        (
            "methods: {bond: {}}\nsettings: {cyclic: {}}",
            "settings.cyclic: bond cannot play it, best-of-N needs a reward order and this is a preference matrix. "
            "Add a method such as wind.",
        ),
        (
            "settings: {reward: {methods: []}}",
            "settings.reward.methods: [] cannot be used. List should have at least 1 item after validation, not 0.",
        ),
        (
            "settings: {cyclic: {methods: [wind, bnd]}}",
            "settings.cyclic.methods: there is no method 'bnd'. "
            "Use some of: wind, bond, self_play, nash_md, extragradient.",
        ),
        (
            "methods: {wind: {}}\nsettings: {matrix: {}}",
            "settings.matrix.preference: is required.",
        ),
        (
            "methods: {wind: {}}\nsettings: {matrix: {preference: [[0.5, 1], [0.5]]}}",
            "settings.matrix.preference: must be square, with a row and a column for each response.",
        ),
        (
            "methods: {wind: {}}\nsettings: {matrix: {preference: [[0.5, 1], [1, 0.5]]}}",
            "settings.matrix.preference: prompt 0: P(y > y') + P(y' > y) must be 1, so P(y > y) = 1/2.",
        ),
        (
            f"methods: {{wind: {{}}}}\nsettings: {{matrix: {{preference: {ROCK_PAPER_SCISSORS}, reference: [1, 2]}}}}",
            "settings.matrix.reference: has 2 weights for 3 responses. Give one for each, or leave it out.",
        ),
        (
            "sampling: {samples: [64, 65]}",
            "sampling.samples: 65 is no multiple of the group of 4. Use multiples.",
        ),
        (
            "sampling: {samples: [8, 64]}",
            "sampling.samples: 8 are too few to fit 6 features. Use 12 or more.",
        ),
        ("sampling: {group: 1}", "sampling.group: 1 cannot be used. Input should be greater than or equal to 2."),
    ],
)
def test_a_bad_setting_is_refused_by_key_with_a_remedy(text, line):
    assert refusal(text) == line


def test_all_misfits_are_named_at_once():
    said = refusal("methods: {bond: {}, nash_md: {eta: 20}}\nsettings: {cyclic: {}, noise: {}}").splitlines()
    assert [line.split(":")[0] for line in said] == [
        "settings.cyclic",
        "methods.nash_md",
        "settings.noise",
        "methods.nash_md",
    ]


def test_the_remedy_for_a_game_without_an_order_works():
    assert config("settings: {cyclic: {methods: [wind, self_play, nash_md, extragradient]}}")


def test_a_written_matrix_needs_its_shape():
    with pytest.raises(ValueError, match="must be square"):
        Matrix(preference=[[0.5, 0.5]])


def test_mixing_that_holds_nothing_is_told():
    lab = config("methods: {bond: {}, held: {name: bond, alpha: 0.76}, mixed: {name: bond, alpha: 0.5}}")
    assert cautions(lab) == [
        "methods.mixed: mixing with alpha = 0.5 does not hold the policy: N·(1 - alpha) = 2 is not below 1, so "
        "log-probs fall without end, from the worst response up. Raise alpha above 0.75, or lower N."
    ]
