"""The reader of `config.json`: figures of published models, every family of `transformers`, and every wrong input."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import warnings
from functools import reduce
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
from expert_placement.model_config import ModelConfig, read_model_config

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

# --- published models -------------------------------------------------------------------------------------------------

# The keys of each file that concern experts, and what must come out of them: E, top-k, groups, MoE layers, shared.
PUBLISHED: dict[str, tuple[dict[str, object], tuple[int, int | None, int | None, int | None, int], str]] = {
    "DeepSeek-V2": (
        {
            "model_type": "deepseek_v2",
            "n_routed_experts": 160,
            "n_shared_experts": 2,
            "num_experts_per_tok": 6,
            "n_group": 8,
            "topk_group": 3,
            "first_k_dense_replace": 1,
            "moe_layer_freq": 1,
            "num_hidden_layers": 60,
        },
        (160, 6, 8, 59, 2),
        "n_routed_experts",
    ),
    "DeepSeek-V4-Flash": (
        {
            "model_type": "deepseek_v4",
            "n_routed_experts": 256,
            "n_shared_experts": 1,
            "num_experts_per_tok": 6,
            "num_hash_layers": 3,
            "num_hidden_layers": 43,
        },
        (256, 6, None, 43, 1),
        "n_routed_experts",
    ),
    "Kimi-K2": (
        {
            "model_type": "kimi_k2",
            "n_routed_experts": 384,
            "n_shared_experts": 1,
            "num_experts_per_tok": 8,
            "n_group": 1,
            "first_k_dense_replace": 1,
            "moe_layer_freq": 1,
            "num_hidden_layers": 61,
        },
        (384, 8, 1, 60, 1),
        "n_routed_experts",
    ),
    "Kimi-K3": (
        {
            "model_type": "kimi_k3",
            "text_config": {"model_type": "kimi_linear", "num_experts": 896, "num_experts_per_token": 16},
            "vision_config": {"vt_num_hidden_layers": 27},
        },
        (896, 16, None, None, 0),
        "text_config.num_experts",
    ),
    "GLM-4.5": (
        {
            "model_type": "glm4_moe",
            "n_routed_experts": 160,
            "n_shared_experts": 1,
            "num_experts_per_tok": 8,
            "n_group": 1,
            "first_k_dense_replace": 3,
            "num_hidden_layers": 92,
        },
        (160, 8, 1, 89, 1),
        "n_routed_experts",
    ),
    "Qwen3-235B-A22B": (
        {
            "model_type": "qwen3_moe",
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
            "num_hidden_layers": 94,
        },
        (128, 8, None, 94, 0),
        "num_experts",
    ),
    "Qwen2-57B-A14B": (
        {
            "model_type": "qwen2_moe",
            "num_experts": 64,
            "num_experts_per_tok": 8,
            "decoder_sparse_step": 1,
            "shared_expert_intermediate_size": 20480,
            "num_hidden_layers": 28,
        },
        (64, 8, None, 28, 1),
        "num_experts",
    ),
    "gpt-oss-20b": (
        {
            "model_type": "gpt_oss",
            "num_local_experts": 32,
            "num_experts_per_tok": 4,
            "experts_per_token": 4,
            "num_hidden_layers": 24,
        },
        (32, 4, None, 24, 0),
        "num_local_experts",
    ),
    "Llama-4-Maverick": (
        {
            "model_type": "llama4",
            "text_config": {
                "model_type": "llama4_text",
                "num_local_experts": 128,
                "num_experts_per_tok": 1,
                "interleave_moe_layer_step": 2,
                "num_hidden_layers": 48,
            },
            "vision_config": {"num_hidden_layers": 34},
        },
        (128, 1, None, 24, 1),
        "text_config.num_local_experts",
    ),
    "Mixtral-8x22B": (
        {"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2, "num_hidden_layers": 56},
        (8, 2, None, 56, 0),
        "num_local_experts",
    ),
    "MiniMax-M3": (
        {
            "model_type": "minimax_m3_vl",
            "text_config": {
                "num_local_experts": 128,
                "num_experts_per_tok": 4,
                "n_shared_experts": 1,
                "moe_layer_freq": [0] * 3 + [1] * 57,
                "num_hidden_layers": 60,
            },
        },
        (128, 4, None, 57, 1),
        "text_config.num_local_experts",
    ),
    "Step-3.5-Flash": (
        {
            "model_type": "step3p5",
            "moe_num_experts": 288,
            "moe_top_k": 8,
            "moe_layers_enum": ",".join(str(layer) for layer in range(3, 45)),
            "share_expert_dim": 1280,
            "num_hidden_layers": 45,
        },
        (288, 8, None, 42, 1),
        "moe_num_experts",
    ),
    "Hunyuan-A13B": (
        {
            "model_type": "hunyuan_v1_moe",
            "num_experts": 64,
            "moe_topk": [8] * 32,
            "num_shared_expert": [1] * 32,
            "moe_layer_num_skipped": 0,
            "num_hidden_layers": 32,
        },
        (64, 8, None, 32, 1),
        "num_experts",
    ),
    "DBRX": (
        {
            "model_type": "dbrx",
            "n_layers": 40,
            "ffn_config": {"model_type": "", "moe_num_experts": 16, "moe_top_k": 4},
        },
        (16, 4, None, 40, 0),
        "ffn_config.moe_num_experts",
    ),
    "ERNIE-4.5-VL-28B": (
        {
            "model_type": "ernie4_5_moe_vl",
            "moe_num_experts": [64, 64],
            "moe_k": 6,
            "moe_num_shared_experts": 2,
            "moe_layer_start_index": [1, 1],
            "moe_layer_end_index": [29, 28],
            "moe_layer_interval": 1,
            "num_hidden_layers": 28,
        },
        (64, 6, None, 27, 2),
        "moe_num_experts",
    ),
    "Gemma-4-26B-A4B": (
        {
            "model_type": "gemma4",
            "text_config": {
                "model_type": "gemma4_text",
                "enable_moe_block": True,
                "num_experts": 128,
                "top_k_experts": 8,
                "num_hidden_layers": 30,
            },
        },
        (128, 8, None, 30, 0),
        "text_config.num_experts",
    ),
    "Jamba": (
        {
            "model_type": "jamba",
            "num_experts": 16,
            "num_experts_per_tok": 2,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "num_hidden_layers": 32,
        },
        (16, 2, None, 16, 0),
        "num_experts",
    ),
    "Nemotron-H": (
        {
            "model_type": "nemotron_h",
            "n_routed_experts": 128,
            "n_shared_experts": 1,
            "moe_shared_expert_intermediate_size": 3712,
            "num_experts_per_tok": 6,
            "n_group": 1,
            "n_groups": 8,
            "hybrid_override_pattern": "MEM*EM-E",
            "num_hidden_layers": 8,
        },
        (128, 6, 1, 3, 1),
        "n_routed_experts",
    ),
    "LongCat-Flash": (
        {
            "model_type": "longcat_flash",
            "n_routed_experts": 512,
            "zero_expert_num": 256,
            "moe_topk": 12,
            "num_layers": 28,
        },
        (512, 12, None, 28, 0),
        "n_routed_experts",
    ),
    "Qwen3-Omni": (
        {
            "model_type": "qwen3_omni_moe",
            "thinker_config": {
                "text_config": {
                    "num_experts": 128,
                    "num_experts_per_tok": 8,
                    "decoder_sparse_step": 1,
                    "num_hidden_layers": 48,
                }
            },
            "talker_config": {"text_config": {"num_experts": 64}},
        },
        (128, 8, None, 48, 0),
        "thinker_config.text_config.num_experts",
    ),
}


@pytest.mark.parametrize("model", PUBLISHED)
def test_published_figures(model: str) -> None:
    config, (num_experts, top_k, num_groups, num_moe_layers, num_shared_experts), experts_key = PUBLISHED[model]
    assert read_model_config(config) == ModelConfig(
        num_experts=num_experts,
        top_k=top_k,
        num_groups=num_groups,
        num_moe_layers=num_moe_layers,
        num_shared_experts=num_shared_experts,
        model_type=str(config["model_type"]),
        experts_key=experts_key,
    )


# --- every family of transformers -------------------------------------------------------------------------------------

# Classes whose default describes no model that can be placed: the reason, and a part of the error that says so.
UNSUPPORTED_DEFAULTS = {
    "diffusion_gemma": ("the default is dense: null experts", "dense model"),
    "diffusion_gemma_text": ("the default is dense: null experts", "dense model"),
    "doge": ("the default is dense: the experts are turned off", "`is_moe` is `false`"),
    "dots1": ("the default is dense: null experts", "dense model"),
    "dots3_note_vision_encoder": ("a pyramid: the expert count differs between layers", "one expert count"),
    "gemma4": ("the default is dense: null experts", "dense model"),
    "gemma4_text": ("the default is dense: null experts", "dense model"),
    "hunyuan_v1_moe": ("the default is dense: one expert", "`num_experts` is `1`"),
    "vitpose": ("a vision backbone, under a section that is not read", "no expert count found"),
    "vitpose_backbone": ("the default is dense: one expert", "`num_experts` is `1`"),
}
# Classes that can not be built without arguments.
NOT_BUILDABLE = {
    "gemma4_assistant": "the defaults of its sections contradict each other",
    "nougat": "the default of its vision section is unknown to the registry",
}
# Any key that looks like a number of routed experts, so that a new spelling is noticed.
LOOKS_LIKE_EXPERTS = re.compile(r"(^|_)(experts|experts_num|expert_num|num_expert|n_expert)$")
NO_ROUTED_EXPERTS = re.compile(r"shared|top_?k|per_tok|zero|normalize")
# Sections beside the language model.
OTHER_SECTIONS = ("vision_config", "audio_config", "talker_config")


def load_defaults() -> dict[str, Any]:
    """The default configuration of each model type, or the exception that building it raised."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers: Any = pytest.importorskip(
            "transformers", minversion="5.23", reason="needs transformers 5.23 or later, whose classes are compared"
        )
        transformers.logging.set_verbosity_error()
        registry = import_module("transformers.models.auto.configuration_auto").CONFIG_MAPPING
        defaults: dict[str, Any] = {}
        for model_type in sorted(registry.keys()):
            try:
                config = registry[model_type]()
                config.to_dict()
            except Exception as error:
                config = error
            defaults[model_type] = config
        return defaults


@pytest.fixture(scope="module")
def defaults() -> dict[str, Any]:
    return load_defaults()


def expert_keys(config: Mapping[Any, object], path: str = "") -> Iterator[str]:
    for key, value in config.items():
        if not isinstance(key, str) or key in OTHER_SECTIONS:
            continue
        if isinstance(value, dict):
            yield from expert_keys(value, f"{path}{key}.")
        elif LOOKS_LIKE_EXPERTS.search(key) and not NO_ROUTED_EXPERTS.search(key):
            yield f"{path}{key}"


def attribute(config: Any, path: str) -> Any:
    return reduce(getattr, path.split("."), config)


def owner(config: Any, path: str) -> Any:
    """The configuration object that the last name of a dotted path belongs to."""
    return reduce(getattr, path.split(".")[:-1], config)


def test_every_expert_count_of_transformers_is_read(defaults: dict[str, Any]) -> None:
    wrong, seen = [], 0
    for model_type, config in defaults.items():
        if isinstance(config, Exception) or model_type in UNSUPPORTED_DEFAULTS:
            continue
        keys = list(expert_keys(config.to_dict()))
        if not keys:
            continue
        seen += 1
        try:
            read = read_model_config(config.to_dict())
        except ValueError as error:
            wrong.append(f"{model_type}: {keys}: {error}")
            continue
        expected = attribute(config, read.experts_key)
        if read.experts_key not in keys or read.num_experts != expected:
            wrong.append(f"{model_type}: read {read.num_experts} from {read.experts_key}, the class has {expected}")
    assert not wrong, "\n".join(wrong)
    assert seen >= 80, f"only {seen} classes with experts: the walk over the registry has lost them"


@pytest.mark.parametrize(
    ("field", "names"),
    [
        ("num_experts", ("num_experts", "num_local_experts", "n_routed_experts")),
        ("top_k", ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_top_k", "moe_k", "top_k_experts")),
        ("num_groups", ("n_group", "num_expert_group")),
        ("num_shared_experts", ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts")),
    ],
)
def test_fields_equal_the_aliases_of_each_class(defaults: dict[str, Any], field: str, names: tuple[str, ...]) -> None:
    wrong, seen = [], 0
    for model_type, config in defaults.items():
        if isinstance(config, Exception) or model_type in UNSUPPORTED_DEFAULTS:
            continue
        if not list(expert_keys(config.to_dict())):
            continue
        read = read_model_config(config)
        section = owner(config, read.experts_key)
        for name in names:
            value = getattr(section, name, None)
            if value is not None:
                seen += 1
                if value != getattr(read, field):
                    wrong.append(f"{model_type}: {field} is {getattr(read, field)}, the class has {name}={value}")
    assert not wrong, "\n".join(wrong)
    assert seen >= 20, f"only {seen} attributes compared"


def test_sparse_layers_equal_the_layer_types_of_each_class(defaults: dict[str, Any]) -> None:
    wrong, seen = [], 0
    for model_type, config in defaults.items():
        if isinstance(config, Exception) or model_type in UNSUPPORTED_DEFAULTS:
            continue
        if not list(expert_keys(config.to_dict())):
            continue
        read = read_model_config(config)
        types = getattr(owner(config, read.experts_key), "mlp_layer_types", None)
        if types is not None:
            seen += 1
            if read.num_moe_layers != len(types) - types.count("dense"):
                wrong.append(f"{model_type}: {read.num_moe_layers} MoE layers, the class has {types}")
    assert not wrong, "\n".join(wrong)
    assert seen >= 20, f"only {seen} classes compared"


# Families whose number of MoE layers is left open for the default configuration, with the reason.
LAYERS_LEFT_OPEN = {
    "deepseek_ocr2": "the default leaves mlp_layer_types null",
    "deepseek_ocr2_text": "the default leaves mlp_layer_types null",
    "nllb-moe": "an encoder and a decoder",
    "switch_transformers": "an encoder and a decoder",
    "zaya": "published files count attention and MoE layers apart, the class counts them together",
}


def test_layers_are_counted_for_every_family_but_those_listed(defaults: dict[str, Any]) -> None:
    left_open = {
        model_type
        for model_type, config in defaults.items()
        if not isinstance(config, Exception)
        and model_type not in UNSUPPORTED_DEFAULTS
        and list(expert_keys(config.to_dict()))
        and read_model_config(config).num_moe_layers is None
    }
    assert left_open == set(LAYERS_LEFT_OPEN)


@pytest.mark.parametrize("model_type", UNSUPPORTED_DEFAULTS)
def test_unsupported_defaults_still_fail_as_listed(defaults: dict[str, Any], model_type: str) -> None:
    reason, part = UNSUPPORTED_DEFAULTS[model_type]
    assert model_type in defaults, f"transformers has no `{model_type}` any more: take it off the table ({reason})"
    with pytest.raises(ValueError, match=re.escape(part)):
        read_model_config(defaults[model_type].to_dict())


def test_classes_that_can_not_be_built_are_those_listed(defaults: dict[str, Any]) -> None:
    failed = {model_type: error for model_type, error in defaults.items() if isinstance(error, Exception)}
    assert set(failed) == set(NOT_BUILDABLE), failed


# model type, arguments, and E / top-k / groups / MoE layers as published.
FIGURES_OF_TRANSFORMERS: dict[str, tuple[dict[str, object], tuple[int, int, int | None, int]]] = {
    "deepseek_v3": ({}, (256, 8, 8, 58)),
    "deepseek_v32": ({}, (256, 8, 8, 58)),
    "deepseek_v4": ({}, (256, 6, None, 43)),
    "glm_moe_dsa": ({}, (256, 8, 1, 75)),
    "gpt_oss": ({}, (128, 4, None, 36)),
    "hy_v4": ({}, (256, 8, 1, 33)),
    # Kimi-K2 is of the family of DeepSeek-V3, which this class holds as its language model.
    "kimi_k25": (
        {
            "text_config": {
                "model_type": "deepseek_v3",
                "n_routed_experts": 384,
                "n_group": 1,
                "topk_group": 1,
                "first_k_dense_replace": 1,
                "num_hidden_layers": 61,
            }
        },
        (384, 8, 1, 60),
    ),
    "kimi_linear": ({"num_experts": 896, "num_experts_per_token": 16}, (896, 16, 1, 26)),
    "llama4": ({}, (16, 1, None, 48)),
    "llama4_text": ({"num_local_experts": 128, "interleave_moe_layer_step": 2}, (128, 1, None, 24)),
    "minimax_m2": ({}, (256, 8, None, 62)),
    "minimax_m3_vl": (
        {"text_config": {"moe_layer_freq": [0] * 3 + [1] * 57, "num_hidden_layers": 60}},
        (128, 4, None, 57),
    ),
    "mixtral": ({}, (8, 2, None, 32)),
    "olmoe": ({}, (64, 8, None, 16)),
    "qwen3_moe": ({"num_hidden_layers": 48}, (128, 8, None, 48)),
    "qwen3_next": ({}, (512, 10, None, 48)),
    "step3p5": ({}, (288, 8, None, 42)),
}


@pytest.mark.parametrize("model_type", FIGURES_OF_TRANSFORMERS)
def test_published_figures_that_transformers_confirms(defaults: dict[str, Any], model_type: str) -> None:
    arguments, expected = FIGURES_OF_TRANSFORMERS[model_type]
    read = read_model_config(type(defaults[model_type])(**arguments))
    assert (read.num_experts, read.top_k, read.num_groups, read.num_moe_layers) == expected
    assert read.model_type == model_type


# --- sources ----------------------------------------------------------------------------------------------------------

MIXTRAL = {"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2, "num_hidden_layers": 32}


class Config:
    def __init__(self, result: object) -> None:
        self.result = result

    def to_dict(self) -> Any:
        return self.result


def write(directory: Path, content: object, name: str = "config.json") -> Path:
    path = directory / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_every_kind_of_source_gives_the_same_answer(tmp_path: Path) -> None:
    path = write(tmp_path, MIXTRAL)
    expected = read_model_config(MIXTRAL)
    for source in (path, str(path), tmp_path, str(tmp_path), Config(MIXTRAL)):
        assert read_model_config(source) == expected


def test_result_is_a_frozen_value() -> None:
    config = read_model_config(MIXTRAL)
    assert hash(config) == hash(read_model_config(MIXTRAL))
    with pytest.raises(AttributeError):
        config.num_experts = 3  # type: ignore[misc]


def test_missing_paths_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.json`: no such file, expected a `config\.json` or"):
        read_model_config(tmp_path / "absent.json")
    with pytest.raises(
        FileNotFoundError, match=rf"`{re.escape(str(tmp_path))}`: the directory holds no `config\.json`"
    ):
        read_model_config(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_model_config("deepseek-ai/DeepSeek-V3")
    with pytest.raises(ValueError, match=r"^`a\\x00b`: a path can not hold a null character$"):
        read_model_config("a\0b")


def run_within_a_minute(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs code that waits for ever where it is broken, so that the test fails instead."""
    program = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(program, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    pipe = tmp_path / "config.json"
    os.mkfifo(pipe)
    link = tmp_path / "link"
    link.symlink_to(pipe)
    code = """
import sys
from expert_placement import Partition
for source in sys.argv[1:]:
    try:
        Partition.from_config(source, 8)
    except ValueError as error:
        print(error)
"""
    result = run_within_a_minute(code, pipe, tmp_path, link)
    assert result.stdout.splitlines() == [
        f"`{path}`: this is no regular file, expected a model's config.json" for path in (pipe, pipe, link)
    ], result.stderr


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs sockets with a path")
def test_devices_and_sockets_are_no_regular_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # The path of a socket is short.
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        for path in ("socket", os.devnull):
            with pytest.raises(ValueError, match=rf"^`{path}`: this is no regular file, expected a model's config"):
                read_model_config(path)


def test_a_link_to_a_file_is_read(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(write(tmp_path, MIXTRAL))
    assert read_model_config(link) == read_model_config(MIXTRAL)


@pytest.mark.parametrize("source", [None, 3, b"config.json", ["config.json"], Config, Config(3)])
def test_other_types_are_refused(source: Any) -> None:
    with pytest.raises(TypeError, match="expected a"):
        read_model_config(source)


# Content of a file, and the whole message after the name of the file.
BROKEN_FILES: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "line 1, column 1: broken JSON: expecting value"),
    "unfinished": ('{\n  "num_experts": ,\n}', "line 2, column 18: broken JSON: expecting value"),
    "trailing text": ("{} {}", "line 1, column 4: broken JSON: extra data"),
    "byte order mark": (
        b"\xef\xbb\xbf{}",
        "line 1, column 1: the file begins with a byte order mark, expected UTF-8 without one",
    ),
    "array": ('["num_experts"]', "the JSON is an array, expected an object"),
    "string": ('"num_experts"', 'the JSON is the string `"num_experts"`, expected an object'),
    "number": ("8", "the JSON is `8`, expected an object"),
    "null": ("null", "the JSON is `null`, expected an object"),
    "not UTF-8": (b'{\n "a": "\xff"}', "line 2, column 8: byte `0xff` is no valid UTF-8"),
    "cut UTF-8": (b'{"\xc3', "line 1, column 3: byte `0xc3` is no valid UTF-8"),
    "duplicate key": (
        '{"num_experts": 8,\n "num_experts": 16}',
        "line 2, column 2: duplicate key `num_experts`",
    ),
    "duplicate key, escaped, nested": (
        '{"a": [1, {"k": "a,b", "\\u006b": 2}]}',
        "line 1, column 24: duplicate key `k`",
    ),
    "NaN": ('{"num_experts": 8,\n "loss": NaN}', "line 2, column 10: `NaN` is no JSON number"),
    "NaN in an array": ('{"loss": [1, NaN]}', "line 1, column 14: `NaN` is no JSON number"),
    "deep": ("[" * 200_000, "the JSON is nested too deeply, expected a model's config.json"),
    "deep objects": ('{"a":' * 200_000, "the JSON is nested too deeply, expected a model's config.json"),
    "huge": (b" " * (8 * 2**20 + 1), "the file is larger than 8388608 bytes, expected a model's config.json"),
    "long integer": (
        '{"num_experts": ' + "9" * 5000 + "}",
        "an integer has too many digits, expected a model's config.json",
    ),
}


@pytest.mark.parametrize("case", BROKEN_FILES)
def test_broken_file_names_file_and_position(tmp_path: Path, case: str) -> None:
    content, message = BROKEN_FILES[case]
    path = write(tmp_path, content)
    with pytest.raises(ValueError, match=r"^`") as caught:
        read_model_config(path)
    assert str(caught.value) == f"`{path}`: {message}"


def test_equal_keys_of_different_objects_are_no_duplicates(tmp_path: Path) -> None:
    text = '{"a": {"k": 1}, "b": [{"k": 1}, {"k": "NaN"}], "c": {}, "k": [], "num_experts": 8, "limit": [0, Infinity]}'
    assert read_model_config(write(tmp_path, text)).num_experts == 8


# --- values -----------------------------------------------------------------------------------------------------------

NO_COUNT = (
    "no expert count found, looked for `n_routed_experts`, `num_experts`, `num_local_experts`, `moe_num_experts` "
    "at the top level"
)
NOT_SET = "`model_type` is not set; this looks like a dense model"
LLAMA = "`model_type` is `llama`; this looks like a dense model"
EXPERTS = "expected an integer in 0..=2147483647"
DEPTH_4 = {"num_experts": 8, "num_hidden_layers": 4}

# A configuration, and the whole message after `mapping: `.
WRONG_CONFIGS: dict[str, tuple[dict[str, object], str]] = {
    "dense": ({"model_type": "llama"}, f"{NO_COUNT}; {LLAMA}"),
    "dense without a type": ({}, f"{NO_COUNT}; {NOT_SET}"),
    "dense in a section": (
        {"text_config": {}, "ffn_config": {}},
        f"{NO_COUNT} and in `text_config`, `ffn_config`; {NOT_SET}",
    ),
    "null": (
        {"model_type": "llama", "num_local_experts": None},
        f"{NO_COUNT}, found only null in `num_local_experts`; {LLAMA}",
    ),
    "no expert": (
        {"model_type": "llama", "num_experts": 0},
        f"`num_experts` is `0`, expected 2 or more routed experts; {LLAMA}",
    ),
    "one expert": ({"num_experts": 1}, f"`num_experts` is `1`, expected 2 or more routed experts; {NOT_SET}"),
    "turned off": (
        {"num_experts": 8, "is_moe": False},
        f"`is_moe` is `false`, which turns `num_experts` off; {NOT_SET}",
    ),
    "no switch": (
        {"num_experts": 8, "is_moe": "no"},
        '`is_moe` is `"no"`, expected true, false or null',
    ),
    "a number for a switch": (
        {"num_experts": 8, "text_config": {"num_experts": 8, "enable_moe_block": 0}},
        "`text_config.enable_moe_block` is `0`, expected true, false or null",
    ),
    "a long type": (
        {"model_type": "x" * 10**6},
        f"{NO_COUNT}; `model_type` is `{'x' * 80}...`; this looks like a dense model",
    ),
    "no MoE layer": (
        {**DEPTH_4, "first_k_dense_replace": 4},
        f"the layer keys leave no layer for the experts of `num_experts`; {NOT_SET}",
    ),
    "bool": ({"num_experts": True}, f"`num_experts` is `true`, {EXPERTS}"),
    "float": ({"num_experts": 8.0}, f"`num_experts` is `8.0`, {EXPERTS}"),
    "infinity": ({"num_experts": float("inf")}, f"`num_experts` is `Infinity`, {EXPERTS}"),
    "NaN": ({"num_experts": float("nan")}, f"`num_experts` is `NaN`, {EXPERTS}"),
    "string": ({"text_config": {"num_experts": "8"}}, f'`text_config.num_experts` is `"8"`, {EXPERTS}'),
    "negative": ({"n_routed_experts": -1}, f"`n_routed_experts` is `-1`, {EXPERTS}"),
    "too large": ({"num_experts": 2**31}, f"`num_experts` is `2147483648`, {EXPERTS}"),
    "far too large": ({"num_experts": 10**5000}, f"`num_experts` is `a value of type int`, {EXPERTS}"),
    "object": ({"num_experts": {"a": 1}}, f'`num_experts` is `{{"a": 1}}`, {EXPERTS}'),
    "empty list": ({"num_experts": []}, f"`num_experts` is `[]`, {EXPERTS}"),
    "long string": ({"num_experts": "x" * 100}, f'`num_experts` is `"{"x" * 76}...`, {EXPERTS}'),
    "line break": ({"num_experts": "a\nb"}, f'`num_experts` is `"a\\nb"`, {EXPERTS}'),
    "unequal list": (
        {"num_experts": [8, 16]},
        "`num_experts` is `[8, 16]`, expected one integer, or a list of equal integers",
    ),
    "two keys disagree": (
        {"n_routed_experts": 256, "num_experts": 128},
        "`n_routed_experts` is `256` and `num_experts` is `128`, expected one value",
    ),
    "two keys disagree about being dense": (
        {"num_experts": 0, "num_local_experts": 8},
        "`num_experts` is `0` and `num_local_experts` is `8`, expected one value",
    ),
    "two sections disagree": (
        {"num_experts": 8, "text_config": {"num_experts": 16}},
        "`num_experts` is `8` and `text_config.num_experts` is `16`, expected one value",
    ),
    "two top-k disagree": (
        {"num_experts": 8, "moe_topk": 2, "num_experts_per_tok": 4},
        "`num_experts_per_tok` is `4` and `moe_topk` is `2`, expected one value",
    ),
    "top-k above E": (
        {"num_experts": 8, "num_experts_per_tok": 9},
        "`num_experts_per_tok` is `9`, expected an integer in 1..=8",
    ),
    "no group": ({"num_experts": 8, "n_group": 0}, "`n_group` is `0`, expected an integer in 1..=8"),
    "shared experts": (
        {"num_experts": 8, "n_shared_experts": 1.5},
        "`n_shared_experts` is `1.5`, expected an integer in 0..=2147483647",
    ),
    "section": ({"text_config": ["num_experts"]}, '`text_config` is `["num_experts"]`, expected an object or null'),
    "model type": ({"model_type": 3, "num_experts": 8}, "`model_type` is `3`, expected a string or null"),
    "experts layer by layer": (
        {"num_experts": 8, "per_layer_config": {"3": {"num_experts": 4}}},
        "`per_layer_config.3.num_experts` is `4` and `num_experts` is `8`, expected one expert count for every layer",
    ),
    "experts in blocks only": (
        {"block_configs": [{"block_type": "mamba"}, {"n_routed_experts": 8}]},
        "`block_configs.1.n_routed_experts` is `8` and there is none for all layers, "
        "expected one expert count for every layer",
    ),
    "layer rules disagree": (
        {**DEPTH_4, "mlp_layer_types": ["dense", "dense", "sparse", "sparse"], "first_k_dense_replace": 1},
        "`mlp_layer_types` makes 2 MoE layers and `first_k_dense_replace` makes 3, expected one number",
    ),
    "layer types too short": (
        {**DEPTH_4, "mlp_layer_types": ["sparse"]},
        "`mlp_layer_types` has 1 entries, expected one for each of 4 layers",
    ),
    "layer types no list": (
        {**DEPTH_4, "mlp_layer_types": "sparse"},
        '`mlp_layer_types` is `"sparse"`, expected a list or null',
    ),
    "frequency no flags": (
        {**DEPTH_4, "moe_layer_freq": [0, 1, 2, 1]},
        "`moe_layer_freq` is `[0, 1, 2, 1]`, expected a list of 0 and 1",
    ),
    "layer ids": ({**DEPTH_4, "moe_layers": [1, -1]}, "`moe_layers` is `[1, -1]`, expected a list of layer ids"),
    "layer enumeration": (
        {**DEPTH_4, "moe_layers_enum": "1,,2"},
        '`moe_layers_enum` is `"1,,2"`, expected layer ids with commas between them',
    ),
    "step of zero": (
        {**DEPTH_4, "decoder_sparse_step": 0},
        "`decoder_sparse_step` is `0`, expected an integer in 1..=2147483647",
    ),
    "too many layers": (
        {"num_experts": 8, "num_hidden_layers": 2**31 - 1, "num_dense_layers": 1},
        "`num_hidden_layers` is `2147483647`, expected an integer in 0..=65536",
    ),
    "pattern": (
        {**DEPTH_4, "hybrid_override_pattern": 3},
        "`hybrid_override_pattern` is `3`, expected a string or null",
    ),
    "first layer": (
        {**DEPTH_4, "moe_layer_interval": 1, "moe_layer_start_index": -1},
        "`moe_layer_start_index` is `-1`, expected an integer from 0 up",
    ),
}


@pytest.mark.parametrize("case", WRONG_CONFIGS)
def test_wrong_value_names_key_value_and_what_is_expected(case: str) -> None:
    config, message = WRONG_CONFIGS[case]
    with pytest.raises(ValueError, match=r"^mapping: ") as caught:
        read_model_config(config)
    assert str(caught.value) == f"mapping: {message}"


def test_wrong_value_names_the_file_or_the_class(tmp_path: Path) -> None:
    path = write(tmp_path, {"num_experts": 1})
    with pytest.raises(ValueError, match="dense model") as caught:
        read_model_config(tmp_path)
    assert str(caught.value).startswith(f"`{path}`: `num_experts` is `1`, ")
    with pytest.raises(ValueError, match=r"^`Config`: `num_experts` is `1`, "):
        read_model_config(Config({"num_experts": 1}))


def test_null_is_absence_and_agreeing_keys_are_one() -> None:
    config = {"n_routed_experts": None, "num_experts": 8, "num_local_experts": 8, "text_config": None}
    assert read_model_config(config).experts_key == "num_experts"


def test_the_innermost_section_that_states_experts_is_read() -> None:
    inner = {"n_routed_experts": 8, "num_local_experts": 8, "num_experts_per_tok": 2, "num_dense_layers": 1}
    config = read_model_config({"num_experts": 8, "text_config": {**inner, "num_hidden_layers": 4}})
    assert (config.experts_key, config.top_k, config.num_moe_layers) == ("text_config.n_routed_experts", 2, 3)


def test_a_sampling_top_k_is_no_top_k() -> None:
    assert read_model_config({"num_experts": 8, "top_k": 50, "n_groups": 8}) == ModelConfig(
        num_experts=8,
        top_k=None,
        num_groups=None,
        num_moe_layers=None,
        num_shared_experts=0,
        model_type=None,
        experts_key="num_experts",
    )


# --- layers -----------------------------------------------------------------------------------------------------------

# Keys beside 8 experts in 12 layers, and the number of MoE layers.
LAYER_KEYS: list[tuple[dict[str, object], int | None]] = [
    ({}, None),
    ({"model_type": "unheard_of"}, None),
    ({"model_type": "mixtral"}, 12),
    ({"model_type": "aria_text"}, 12),
    ({"model_type": "mixtral", "num_layers": 13}, None),
    ({"mlp_layer_types": ["dense"] * 5 + ["sparse"] * 7}, 7),
    ({"mlp_layer_types": ["dense"] * 5 + ["hash_moe"] + ["moe"] * 8}, 7),
    ({"mlp_layer_types": ["unheard of"] * 12}, None),
    ({"moe_layers": [0, 5, 11, 12]}, 3),
    ({"moe_layers_enum": "0, 5,11"}, 3),
    ({"interleave_moe_layer_step": 5}, 2),
    ({"first_k_dense_replace": 3}, 9),
    ({"first_k_dense_replace": 3, "moe_layer_freq": 1}, 9),
    ({"model_type": "deepseek_v3", "first_k_dense_replace": 3, "moe_layer_freq": 2}, 4),
    ({"model_type": "unheard_of", "first_k_dense_replace": 3, "moe_layer_freq": 2}, None),
    ({"first_k_dense_replace": 3, "moe_layer_freq": [0] * 3 + [1] * 9}, 9),
    ({"moe_layer_freq": [False] * 2 + [True] * 10}, 10),
    ({"num_dense_layers": 2}, 10),
    ({"moe_layer_num_skipped": 1}, 11),
    ({"decoder_sparse_step": 5}, 2),
    ({"decoder_sparse_step": 1, "mlp_only_layers": [0, 3, 40]}, 10),
    ({"decoder_sparse_step": 4, "encoder_sparse_step": 4}, None),
    ({"expert_layer_period": 5, "expert_layer_offset": 1}, 3),
    ({"moe_layer_interval": 1, "moe_layer_start_index": 1, "moe_layer_end_index": -1}, 11),
    ({"moe_layer_interval": 2, "moe_layer_start_index": 2, "moe_layer_end_index": 9}, 4),
    ({"moe_layer_interval": 1, "moe_layer_start_index": [1, 2], "moe_layer_end_index": -1}, None),
    ({"model_type": "nemotron_h", "layers_block_type": ["mamba", "moe", "attention", "moe"]}, 2),
]


@pytest.mark.parametrize(("keys", "expected"), LAYER_KEYS, ids=[json.dumps(keys)[:60] for keys, _ in LAYER_KEYS])
def test_moe_layers(keys: dict[str, object], expected: int | None) -> None:
    assert read_model_config({"num_experts": 8, "num_hidden_layers": 12, **keys}).num_moe_layers == expected


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, 0),
        ({"n_shared_experts": 2}, 2),
        ({"n_shared_experts": None}, 0),
        ({"num_shared_experts": 0, "shared_expert_intermediate_size": 512}, 0),
        ({"shared_expert_intermediate_size": 512}, 1),
        ({"shared_intermediate_size": 0}, 0),
        ({"model_type": "llama4_text"}, 1),
    ],
)
def test_shared_experts(keys: dict[str, object], expected: int) -> None:
    assert read_model_config({"num_experts": 8, **keys}).num_shared_experts == expected
