"""The expert counts of a model, read from its Hugging Face `config.json`.

Families spell the same figure in different ways: the routed experts alone stand under four keys, at the top level or in
a nested section. The tables below list every spelling that is read. A configuration that contradicts itself, or that
says nothing, is an error: nothing is guessed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from expert_placement._core import MAX_NUM_EXPERTS
from expert_placement._text import excerpt
from expert_placement.formats.files import LONGEST_PATH
from expert_placement.formats.json_object import read_object, shown

__all__ = ["ModelConfig", "read_model_config"]

# The largest count that the int32 tables of a placement can hold.
_MAX_COUNT = MAX_NUM_EXPERTS
# Layers are counted one by one, and the deepest model published has fewer than 2**8.
_MAX_LAYERS = 2**16
# A config.json is a few KiB, and 2 MiB with the longest table of class names published.
_MAX_FILE_BYTES = 8 * 2**20
_EXPECTED = "a model's config.json"
_LONGEST_PATH = 200

# Where the language model of a configuration is described, outermost first. Vision, audio and talker sections are left
# out on purpose: their experts are no part of the model that is placed. Such a section can be passed by itself.
_SECTIONS = (
    "",
    "text_config",
    "language_config",
    "llm_config",
    "ffn_config",
    "text_config.ffn_config",
    "thinker_config",
    "thinker_config.text_config",
)
# Routed experts of one MoE layer.
_EXPERT_KEYS = ("n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts")
# Routed experts of one token. Never `top_k`: that is a sampling parameter, and older files carry it.
_TOP_K_KEYS = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "experts_per_token",
    "moe_topk",
    "moe_top_k",
    "moe_k",
    "top_k_experts",
)
# Groups of experts for group-limited routing. Never `n_groups`: that counts the groups of a Mamba layer.
_GROUP_KEYS = ("n_group", "num_expert_group", "num_expert_groups")
_SHARED_COUNT_KEYS = ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts", "num_shared_expert")
# Widths of a shared expert. They count as one shared expert where no count is stated.
_SHARED_WIDTH_KEYS = (
    "shared_expert_intermediate_size",
    "moe_shared_expert_intermediate_size",
    "shared_intermediate_size",
    "share_expert_dim",
)
_NUM_LAYERS_KEYS = ("num_hidden_layers", "n_layers", "num_layers")
# Switches that turn the experts off whatever their number.
_SWITCH_KEYS = ("is_moe", "enable_moe_block")
# Where a configuration overrides itself layer by layer.
_PER_LAYER_KEYS = ("per_layer_config", "block_configs")

# Families (model types without a trailing "_text") whose every layer is an MoE layer unless a key says otherwise.
_EVERY_LAYER = frozenset(
    {
        "aria",
        "dbrx",
        "deepseek_v4",
        "diffusion_gemma",
        "flex_olmo",
        "gemma4",
        "gpt_oss",
        "granitemoe",
        "granitemoe_swa",
        "granitemoehybrid",
        "granitemoeshared",
        "hunyuan_v1_moe",
        "inkling2",
        "inkling2_loop",
        "jetmoe",
        "kolibri1",
        "lara_mini",
        "longcat_flash",
        "minimax",
        "minimax_m2",
        "mixtral",
        "olmoe",
        "openai_privacy_filter",
        "phimoe",
        "qwen3_5_moe",
        "qwen4_exp",
        "solar_open",
    }
)
# Families whose every MoE layer has one shared expert that no key mentions.
_ONE_SHARED_EXPERT = frozenset({"hunyuan_v1_moe", "llama4"})
# Families that read `moe_layer_freq = f` as: layer i is an MoE layer where i % f == 0. Others count from the first MoE
# layer, so that a frequency above 1 means nothing without the family.
_ABSOLUTE_FREQUENCY = ("axk1", "deepseek", "glm", "kimi")
_SPARSE_LAYER_TYPES = frozenset({"sparse", "moe", "hash_moe"})
_LAYER_TYPES = _SPARSE_LAYER_TYPES | {"dense"}


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The expert counts of a mixture-of-experts model, as its configuration states them.

    Attributes:
        num_experts: routed experts of one MoE layer, E, in 2..=2**31 - 1. Shared experts and zero experts (identity
            functions that a router may choose) are not counted.
        top_k: routed experts of one token, in 1..=E; None where no key states it. LongCat counts zero experts here.
        num_groups: groups of experts for group-limited routing, in 1..=E; None where no key states it.
        num_moe_layers: layers with routed experts, at least 1, without the layers for multi-token prediction; None
            where it can not be told, as for a family without a known rule or a model with two stacks of layers.
        num_shared_experts: shared experts of one MoE layer, 0 where there are none. A family that states only the width
            of its shared expert has one.
        model_type: `model_type` of the whole model, or of the section that holds E; None where neither has one.
        experts_key: the key that E was read from, with dots between sections: `"text_config.num_local_experts"`.
            Where several sections state it, the innermost.
    """

    num_experts: int
    top_k: int | None
    num_groups: int | None
    num_moe_layers: int | None
    num_shared_experts: int
    model_type: str | None
    experts_key: str


@runtime_checkable
class HasToDict(Protocol):
    """An object that gives itself as a mapping, as the configuration classes of transformers do."""

    def to_dict(self) -> Mapping[str, object]: ...


def read_model_config(source: str | os.PathLike[str] | Mapping[str, object] | HasToDict) -> ModelConfig:
    """The expert counts of a model, read from its Hugging Face configuration.

    Keys that state the same figure must agree, inside a section and between sections. A key whose value is null counts
    as absent. A list counts as its one value where all entries are equal (one entry a layer, or a modality). A model
    with fewer than two experts is dense, whichever key says so.

    A string is always a path, never the name of a model on a hub.

    Args:
        source: the file, a directory that holds a `config.json`, or the configuration itself as a mapping or as an
            object with a `to_dict` method.

    Raises:
        FileNotFoundError: there is no such file, or no `config.json` in the directory.
        ValueError: the path leads to no regular file, or the file is no JSON object in UTF-8, describes a dense model,
            contradicts itself, or holds a value of the wrong kind or out of range.
        TypeError: `source` is of none of the accepted types.

    Example:
        >>> config = read_model_config({"model_type": "mixtral", "num_local_experts": 8, "num_hidden_layers": 32})
        >>> config.num_experts, config.num_moe_layers, config.experts_key
        (8, 32, 'num_local_experts')
    """
    return config_argument("source", source)


def config_argument(parameter: str, source: object) -> ModelConfig:
    """As `read_model_config`, for an argument of another name."""
    name, root = _load(parameter, source)
    sections = _sections(name, root)
    hits = [(section.at(key), value, section) for section in sections for key, value in section.counts(_EXPERT_KEYS)]
    model_type = sections[0].model_type()
    if not hits:
        raise ValueError(_no_experts(name, sections, model_type))
    _agree(name, [(key, value) for key, value, _ in hits])
    # An outer section may repeat the count alone, so that the innermost one is read for the rest.
    experts_key, num_experts, section = next(hit for hit in hits if hit[2] is hits[-1][2])
    model_type = model_type if model_type is not None else section.model_type()
    dense = f"{_shown_type(model_type)}; this looks like a dense model"
    if num_experts < 2:
        raise ValueError(f"{name}: `{experts_key}` is `{num_experts}`, expected 2 or more routed experts; {dense}")
    for switch in _SWITCH_KEYS:
        state = section.get(switch)
        if state is not None and not isinstance(state, bool):
            raise section.invalid(switch, state, "true, false or null")
        if state is False:
            raise ValueError(f"{name}: `{section.at(switch)}` is `false`, which turns `{experts_key}` off; {dense}")
    section.reject_other_counts(experts_key, num_experts)

    # A feed-forward section holds what concerns the experts; the section around it holds the layers.
    model = section.parent if section.parent is not None and section.path.endswith("ffn_config") else section
    family = (model.model_type() or model_type or "").removesuffix("_text")
    num_moe_layers = _num_moe_layers(model, family)
    if num_moe_layers == 0:
        raise ValueError(f"{name}: the layer keys leave no layer for the experts of `{experts_key}`; {dense}")
    has_zero_experts = section.get("zero_expert_num") is not None  # a router may choose them beside the E real ones
    return ModelConfig(
        num_experts=num_experts,
        top_k=section.count(_TOP_K_KEYS, low=1, high=_MAX_COUNT if has_zero_experts else num_experts),
        num_groups=section.count(_GROUP_KEYS, low=1, high=num_experts),
        num_moe_layers=num_moe_layers,
        num_shared_experts=_num_shared_experts(section, family),
        model_type=model_type,
        experts_key=experts_key,
    )


# --- from a source to a mapping ---------------------------------------------------------------------------------------


def _load(parameter: str, source: object) -> tuple[str, Mapping[str, object]]:
    """The name of a source for error messages, and the mapping that it stands for."""
    if isinstance(source, Mapping):
        return "mapping", source
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        if isinstance(path, str):
            return _load_path(parameter, path)
    elif isinstance(source, HasToDict) and not isinstance(source, type):
        name = f"`{type(source).__name__}`"
        converted: object = source.to_dict()
        if isinstance(converted, Mapping):
            return name, converted
        raise TypeError(f"{name}: to_dict() returned `{type(converted).__name__}`, expected a mapping")
    expected = "a path, a mapping or an object with a to_dict method"
    raise TypeError(f"{parameter} is of type `{type(source).__name__}`, expected {expected}")


def _load_path(parameter: str, path: str) -> tuple[str, Mapping[str, object]]:
    name = f"`{excerpt(path, _LONGEST_PATH)}`"
    if not path:
        raise ValueError(f"{parameter}: the path of the configuration is empty, expected a file or a directory")
    if "\0" in path:
        raise ValueError(f"{name}: a path can not hold a null character")
    file = Path(path)
    try:
        length = len(os.fsencode(path))
    except UnicodeEncodeError as error:
        raise ValueError(f"{name}: {error}") from None
    if length > LONGEST_PATH:
        raise ValueError(f"{name}: the path is longer than any that there is, expected a file or a directory")
    if file.is_dir():
        file = file / "config.json"
        if not file.exists():
            raise FileNotFoundError(f"{name}: the directory holds no `config.json`")
        name = f"`{excerpt(str(file), _LONGEST_PATH)}`"
    elif not file.exists():
        raise FileNotFoundError(f"{name}: no such file, expected a `config.json` or a directory that holds one")
    return name, read_object(file, name, _EXPECTED, _MAX_FILE_BYTES)


# --- one section of a configuration -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Section:
    """One JSON object of a configuration, with what is needed to name its keys in an error."""

    name: str
    path: str
    data: Mapping[str, object]
    parent: _Section | None

    def at(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def get(self, key: str) -> object:
        return self.data.get(key)

    def invalid(self, key: str, value: object, expected: str) -> ValueError:
        return ValueError(f"{self.name}: `{self.at(key)}` is `{shown(value)}`, expected {expected}")

    def model_type(self) -> str | None:
        value = self.get("model_type")
        if value is None or isinstance(value, str):
            return value
        raise self.invalid("model_type", value, "a string or null")

    def counts(self, keys: Sequence[str], low: int = 0, high: int = _MAX_COUNT) -> list[tuple[str, int]]:
        """The keys among `keys` that are stated, each with its value."""
        return [(key, self._count(key, low, high)) for key in keys if self.get(key) is not None]

    def count(self, keys: Sequence[str], low: int = 0, high: int = _MAX_COUNT) -> int | None:
        """The one value of all `keys` that are stated, or None where none is."""
        hits = self.counts(keys, low, high)
        _agree(self.name, [(self.at(key), value) for key, value in hits])
        return hits[0][1] if hits else None

    def entries(self, key: str) -> Sequence[object] | None:
        value = self.get(key)
        if value is None or isinstance(value, (list, tuple)):
            return value
        raise self.invalid(key, value, "a list or null")

    def _count(self, key: str, low: int, high: int) -> int:
        value = self.get(key)
        entries = value if isinstance(value, (list, tuple)) and value else [value]
        counts = [entry for entry in entries if type(entry) is int and low <= entry <= high]
        if len(counts) != len(entries):
            raise self.invalid(key, value, f"an integer in {low}..={high}")
        if len(set(counts)) > 1:
            raise self.invalid(key, value, "one integer, or a list of equal integers")
        return counts[0]

    def reject_other_counts(self, experts_key: str, num_experts: int | None) -> None:
        """Raises where single layers state another number of experts than the model."""
        for container in _PER_LAYER_KEYS:
            value = self.get(container)
            entries: list[tuple[object, object]] = []
            if isinstance(value, Mapping):
                entries = list(value.items())
            elif isinstance(value, (list, tuple)):
                entries = list(enumerate(value))
            for index, entry in entries:
                if not isinstance(entry, Mapping):
                    continue
                path = f"{self.at(container)}.{excerpt(str(index), 80)}"
                layer = _Section(self.name, path, entry, None)
                for key, count in layer.counts(_EXPERT_KEYS):
                    if count != num_experts:
                        other = f"`{experts_key}` is `{num_experts}`" if experts_key else "there is none for all layers"
                        raise ValueError(
                            f"{self.name}: `{layer.at(key)}` is `{count}` and {other}, "
                            "expected one expert count for every layer"
                        )


def _sections(name: str, root: Mapping[str, object]) -> list[_Section]:
    """The sections of a configuration that may describe its experts, the top level first."""
    found = {"": _Section(name, "", root, None)}
    for path in _SECTIONS[1:]:
        outer, _, key = path.rpartition(".")
        if outer not in found:
            continue
        parent = found[outer]
        value = parent.get(key)
        if isinstance(value, Mapping):
            found[path] = _Section(name, path, value, parent)
        elif value is not None:
            raise parent.invalid(key, value, "an object or null")
    return list(found.values())


def _agree(name: str, hits: Sequence[tuple[str, int]]) -> None:
    for key, value in hits[1:]:
        if value != hits[0][1]:
            raise ValueError(f"{name}: `{hits[0][0]}` is `{hits[0][1]}` and `{key}` is `{value}`, expected one value")


def _no_experts(name: str, sections: Sequence[_Section], model_type: str | None) -> str:
    for section in sections:
        section.reject_other_counts("", None)
    keys = ", ".join(f"`{key}`" for key in _EXPERT_KEYS)
    places = ", ".join(f"`{section.path}`" for section in sections[1:])
    nulls = [section.at(key) for section in sections for key in _EXPERT_KEYS if key in section.data]
    return (
        f"{name}: no expert count found, looked for {keys} at the top level"
        + (f" and in {places}" if places else "")
        + (f", found only null in {', '.join(f'`{key}`' for key in nulls)}" if nulls else "")
        + f"; {_shown_type(model_type)}; this looks like a dense model"
    )


# --- layers and shared experts ----------------------------------------------------------------------------------------


def _num_shared_experts(section: _Section, family: str) -> int:
    stated = section.count(_SHARED_COUNT_KEYS)
    if stated is not None:
        return stated
    widths = section.counts(_SHARED_WIDTH_KEYS)
    if widths:
        return int(any(width > 0 for _, width in widths))
    return int(family in _ONE_SHARED_EXPERT)


def _num_moe_layers(section: _Section, family: str) -> int | None:
    """Layers with routed experts, or None where no rule applies.

    Several rules may apply, since files carry the old keys of a family beside its new ones. Engines differ in which of
    them they read, so that rules which disagree are an error.
    """
    if section.get("encoder_sparse_step") is not None:
        return None  # an encoder and a decoder, each with its own layers and experts
    depths = {value for _, value in section.counts(_NUM_LAYERS_KEYS, high=_MAX_LAYERS)}
    if len(depths) > 1:
        return None  # one of the keys counts something else, and which one depends on the family
    depth = depths.pop() if depths else None
    answers = []
    for key, rule in _LAYER_RULES:
        if section.get(key) is not None:
            count = rule(section, family, depth)
            if count is not None:
                answers.append((section.at(key), count))
    for key, count in answers[1:]:
        first_key, first_count = answers[0]
        if count != first_count:
            raise ValueError(
                f"{section.name}: `{first_key}` makes {first_count} MoE layers and `{key}` makes {count}, "
                "expected one number"
            )
    if answers:
        return answers[0][1]
    stated = any(section.get(key) is not None for key, _ in _LAYER_RULES)
    return depth if family in _EVERY_LAYER and not stated else None


def _by_layer_types(section: _Section, _family: str, depth: int | None) -> int | None:
    types = _one_a_layer(section, "mlp_layer_types", depth)
    known = all(isinstance(kind, str) and kind in _LAYER_TYPES for kind in types)
    return sum(kind in _SPARSE_LAYER_TYPES for kind in types) if known else None


def _by_block_types(section: _Section, family: str, _depth: int | None) -> int | None:
    blocks = section.entries("layers_block_type") or ()
    return sum(block == "moe" for block in blocks) if family == "nemotron_h" else None


def _by_pattern(section: _Section, family: str, _depth: int | None) -> int | None:
    pattern = section.get("hybrid_override_pattern")
    if not isinstance(pattern, str):
        raise section.invalid("hybrid_override_pattern", pattern, "a string or null")
    return pattern.count("E") if family == "nemotron_h" else None


def _by_layer_list(section: _Section, _family: str, depth: int | None) -> int | None:
    return _layers_where(depth, _layer_ids(section, "moe_layers").__contains__)


def _by_layer_enumeration(section: _Section, _family: str, depth: int | None) -> int | None:
    value = section.get("moe_layers_enum")
    if not isinstance(value, str) or not re.fullmatch(r"\s*[0-9]{1,9}\s*(,\s*[0-9]{1,9}\s*)*", value, re.ASCII):
        raise section.invalid("moe_layers_enum", value, "layer ids with commas between them")
    return _layers_where(depth, {int(layer) for layer in value.split(",")}.__contains__)


def _by_interleaving(section: _Section, _family: str, depth: int | None) -> int | None:
    step = section.count(("interleave_moe_layer_step",)) or 0
    return _layers_where(depth, lambda layer: step > 0 and (layer + 1) % step == 0)


def _by_dense_prefix(key: str) -> _LayerRule:
    def rule(section: _Section, _family: str, depth: int | None) -> int | None:
        prefix = section.count((key,)) or 0
        return _layers_where(depth, lambda layer: layer >= prefix)

    return rule


def _by_first_dense(section: _Section, family: str, depth: int | None) -> int | None:
    prefix = section.count(("first_k_dense_replace",)) or 0
    if isinstance(section.get("moe_layer_freq"), (list, tuple)):
        return None  # the list says more
    step = section.count(("moe_layer_freq",), low=1) or 1
    if step > 1 and not family.lower().startswith(_ABSOLUTE_FREQUENCY):
        return None
    return _layers_where(depth, lambda layer: layer >= prefix and layer % step == 0)


def _by_frequency(section: _Section, _family: str, depth: int | None) -> int | None:
    value = section.get("moe_layer_freq")
    if not isinstance(value, (list, tuple)):
        section.count(("moe_layer_freq",), low=1)
        return None  # a step, which _by_first_dense reads
    flags = _one_a_layer(section, "moe_layer_freq", depth)
    if not all(type(flag) in (int, bool) and flag in (0, 1) for flag in flags):
        raise section.invalid("moe_layer_freq", value, "a list of 0 and 1")
    return sum(flag == 1 for flag in flags)


def _by_sparse_step(section: _Section, _family: str, depth: int | None) -> int | None:
    step = section.count(("decoder_sparse_step",), low=1) or 1
    dense = _layer_ids(section, "mlp_only_layers")
    return _layers_where(depth, lambda layer: layer not in dense and (layer + 1) % step == 0)


def _by_period(section: _Section, _family: str, depth: int | None) -> int | None:
    period = section.count(("expert_layer_period",), low=1) or 1
    offset = section.count(("expert_layer_offset",))
    return None if offset is None else _layers_where(depth, lambda layer: layer % period == offset)


def _by_interval(section: _Section, _family: str, depth: int | None) -> int | None:
    """ERNIE: every interval-th layer between a first and a last one, which may differ between text and vision."""
    step = section.count(("moe_layer_interval",), low=1) or 1
    starts = _bounds(section, "moe_layer_start_index", 0)
    ends = _bounds(section, "moe_layer_end_index", -1)
    if depth is None or (len(starts) != len(ends) and 1 not in (len(starts), len(ends))):
        return None

    def layers(start: int, end: int) -> int | None:
        last = depth - 1 if end == -1 and depth is not None else end
        return _layers_where(depth, lambda layer: start <= layer <= last and (layer + 1) % step == 0)

    size = max(len(starts), len(ends))
    pairs = zip(starts * (size // len(starts)), ends * (size // len(ends)), strict=True)
    counts = {layers(start, end) for start, end in pairs}
    return counts.pop() if len(counts) == 1 else None


_LayerRule = Callable[[_Section, str, "int | None"], "int | None"]

# A rule is asked where its key is stated. Layers are numbered from 0.
_LAYER_RULES: tuple[tuple[str, _LayerRule], ...] = (
    ("mlp_layer_types", _by_layer_types),
    ("layers_block_type", _by_block_types),
    ("hybrid_override_pattern", _by_pattern),
    ("moe_layers", _by_layer_list),
    ("moe_layers_enum", _by_layer_enumeration),
    ("interleave_moe_layer_step", _by_interleaving),
    ("moe_layer_freq", _by_frequency),
    ("first_k_dense_replace", _by_first_dense),
    ("num_dense_layers", _by_dense_prefix("num_dense_layers")),
    ("moe_layer_num_skipped", _by_dense_prefix("moe_layer_num_skipped")),
    ("decoder_sparse_step", _by_sparse_step),
    ("expert_layer_period", _by_period),
    ("moe_layer_interval", _by_interval),
)


def _layers_where(depth: int | None, is_moe: Callable[[int], bool]) -> int | None:
    return None if depth is None else sum(is_moe(layer) for layer in range(depth))


def _one_a_layer(section: _Section, key: str, depth: int | None) -> Sequence[object]:
    """A list with an entry for each layer, without those that follow for multi-token prediction."""
    entries = section.entries(key) or ()
    if depth is None:
        return entries
    if len(entries) < depth:
        raise ValueError(
            f"{section.name}: `{section.at(key)}` has {len(entries)} entries, expected one for each of {depth} layers"
        )
    return entries[:depth]


def _layer_ids(section: _Section, key: str) -> frozenset[int]:
    entries = section.entries(key) or ()
    ids = [entry for entry in entries if type(entry) is int and entry >= 0]
    if len(ids) != len(entries):
        raise section.invalid(key, entries, "a list of layer ids")
    return frozenset(ids)


def _bounds(section: _Section, key: str, default: int) -> list[int]:
    value = section.get(key)
    if value is None:
        return [default]
    entries = list(value) if isinstance(value, (list, tuple)) and value else [value]
    bounds = [entry for entry in entries if type(entry) is int and entry >= default]
    if len(bounds) != len(entries):
        raise section.invalid(key, value, f"an integer from {default} up")
    return bounds


# --- words of an error ------------------------------------------------------------------------------------------------


def _shown_type(model_type: str | None) -> str:
    return "`model_type` is not set" if model_type is None else f"`model_type` is `{excerpt(model_type, 80)}`"
