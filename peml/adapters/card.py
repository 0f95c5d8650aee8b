"""The model card of a folder: what it is, how it is loaded, how it scored (`README.md`)."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from peml.adapters.files import MANIFEST, adapter_folder
from peml.adapters.manifest import Manifest
from peml.adapters.origin import (
    ARCHITECTURE,
    CARD,
    METHOD,
    PICTURE,
    SCORES,
    Origin,
    hub_id,
    origin_of,
)
from peml.model.model import Family
from prefixnas.base.files import write_text
from prefixnas.report.grid import in_markdown

HERE = 'folder = "."  # where this file lies'
"""How a card's code names its folder; `on_hub` puts the hub in its place."""

ADAPTER, PEML, MERGED, PEFT, STOCK_LORA = "adapter", "peml", "merged", "peft", "peft-lora"
"""What a folder is, in which a card lies."""

_LIBRARIES = {ADAPTER: "peml", PEML: "peml", MERGED: "transformers", PEFT: "peft"}
_PIPELINES: Mapping[Family, str] = {
    "decoder": "text-generation",
    "encoder-decoder": "text-generation",
    "encoder": "text-classification",
}
_AUTO: Mapping[Family, str] = {
    "decoder": "AutoModelForCausalLM",
    "encoder-decoder": "AutoModelForSeq2SeqLM",
    "encoder": "AutoModel",
}
_AUTO_PEFT: Mapping[Family, str] = {
    "decoder": "AutoPeftModelForCausalLM",
    "encoder-decoder": "AutoPeftModelForSeq2SeqLM",
    "encoder": "AutoPeftModelForFeatureExtraction",
}


def write_card(folder: Path, kind: str, manifest: Manifest, origin: Origin, note: str = "") -> None:
    """Write the model card of a folder, and the drawing of the architecture beside it.

    Args:
        folder: The folder.
        kind: `ADAPTER`, `PEML`, `MERGED`, `PEFT` or `STOCK_LORA`.
        manifest: What was trained; of an export, the manifest that it was made of.
        origin: What else is known of it.
        note: Markdown in front of everything else, such as a warning.

    Raises:
        UserError: It cannot be written.
    """
    if origin.picture is not None and not (folder / PICTURE).exists():
        shutil.copyfile(origin.picture, folder / PICTURE)
    write_text(folder / CARD, str(model_card(kind, manifest, origin, note)))


def model_card(kind: str, manifest: Manifest, origin: Origin, note: str = "") -> ModelCard:
    """Return a model card; the arguments are those of `write_card`."""
    data = _metadata(kind, manifest, origin)
    body = _body(kind, manifest, origin, note)
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}")


def write_run_card(run: Path) -> None:
    """Write the model card of a finished run's adapter, if it has one.

    Raises:
        UserError: It cannot be written, or the adapter is damaged.
    """
    folder = adapter_folder(run)
    if (folder / MANIFEST).is_file():
        manifest = Manifest.read(folder)
        write_card(folder, ADAPTER, manifest, origin_of(folder, manifest))


def on_hub(card: ModelCard, repo: str) -> ModelCard:
    """Return a card as it stands in a repository of the hub: named after it, and loaded from it."""
    text = card.text
    if HERE in text:
        there = f'folder = snapshot_download("{repo}")'
        start = "from huggingface_hub import snapshot_download\n"
        text = text.replace(HERE, there).replace("```python\n", f"```python\n{start}", 1)
    changed = ModelCard(str(card))
    changed.text = text
    if changed.data.get("eval_results"):
        changed.data["model_name"] = repo.partition("/")[2]
    return changed


def with_licence(card: ModelCard, licence: Mapping[str, str]) -> ModelCard:
    """Return a card that names the licence of the base model, by the keys of a model card."""
    changed = ModelCard(str(card))
    for key, value in licence.items():
        changed.data[key] = value
    before, title, _ = card.text.partition(_LICENCE)
    changed.text = f"{before}{title}\n{_licence(licence)}\n" if title else card.text
    return changed


_LICENCE = "## Licence\n"


def _name(manifest: Manifest, origin: Origin) -> str:
    """Name a model after its base; the name of its folder would make equal runs different."""
    base = manifest.base or origin.base or manifest.architecture
    return f"{re.split('[/:]', base)[-1]}-peml"


def _metadata(kind: str, manifest: Manifest, origin: Origin) -> ModelCardData:
    adapts = kind in (ADAPTER, PEFT, STOCK_LORA)
    known: dict[str, Any] = dict(origin.licence)
    if origin.base is not None:
        known["base_model"] = origin.base
        known["base_model_relation"] = "adapter" if adapts else "finetune"
    lacks = {MERGED: manifest.sites or manifest.heads, STOCK_LORA: manifest.heads}
    if origin.results and not lacks.get(kind):  # what lacks its prefix or heads has other scores
        known["model_name"] = _name(manifest, origin)
        known["eval_results"] = list(origin.results)
        known["metrics"] = sorted({result.metric_type for result in origin.results})
    sources = [hub_id(str(task["source"])) for task in manifest.tasks if "source" in task]
    tags = ["multi-task", "peml", "prefixnas", *(["lora"] if manifest.lora else [])]
    return ModelCardData(
        library_name=_LIBRARIES.get(kind, "peft"),
        pipeline_tag=_PIPELINES[manifest.family],
        tags=[*tags, *(["prefix-tuning"] if manifest.sites else [])],
        datasets=list(dict.fromkeys(source for source in sources if source)) or None,
        **known,
    )


def _body(kind: str, manifest: Manifest, origin: Origin, note: str) -> str:
    parts = [f"# {in_markdown(_name(manifest, origin))}", note, _summary(manifest, origin)]
    parts += ["## How to load it", _loading(kind, manifest)]
    for title in (SCORES, METHOD, ARCHITECTURE):
        if title in origin.sections:
            drawn = title == ARCHITECTURE and origin.picture is not None
            image = f"\n\n![The architecture]({PICTURE})"
            text = origin.sections[title].replace(image, "")
            parts += [f"## {title}", text.strip() + (image if drawn else "")]
    parts += [_LICENCE, _licence(origin.licence)]
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def _summary(manifest: Manifest, origin: Origin) -> str:
    base = f"[{origin.base}](https://huggingface.co/{origin.base})" if origin.base else None
    if base is None and manifest.base is not None:
        base = f"`{Path(manifest.base).name}`"
    named = (
        f"{base} (architecture `{manifest.architecture}`)"
        if base
        else f"A model of the architecture `{manifest.architecture}`"
    )
    tasks = ", ".join(in_markdown(str(task.get("name"))) for task in manifest.tasks)
    return f"{named}, fine-tuned by PEML (package `prefixnas`)" + (
        f" for the tasks {tasks}." if tasks else "."
    )


def _licence(licence: Mapping[str, str]) -> str:
    if not licence:
        return (
            "The licence of the base model holds for weights that were made of it. It is not named "
            "here: the base model's own card was not at hand."
        )
    said = licence.get("license_name") or licence.get("license", "")
    link = licence.get("license_link")
    named = f"{in_markdown(said)} ({link})" if link else in_markdown(said)
    return f"That of the base model, by its own card: {named}."


def _loading(kind: str, manifest: Manifest) -> str:
    if kind == PEML:  # where the model lies in the folder, with everything merged into it
        manifest = replace(manifest, base=None, revision=None, method=None)
    makers = {MERGED: _load_merged, PEFT: _load_peft, STOCK_LORA: _load_stock_lora}
    return makers.get(kind, _load_peml)(manifest)


def _code(*lines: str) -> str:
    return "```python\n" + "\n".join(lines) + "\n```"


def _use(manifest: Manifest, model: str, tokenizer: str) -> list[str]:
    """Lines that write after a prompt, or read one."""
    lines = [f'inputs = {tokenizer}("Write a prompt here", return_tensors="pt")']
    if manifest.family == "encoder":
        lines.append(f"hidden = {model}(**inputs).last_hidden_state")
        return lines
    lines.append(f"tokens = {model}.generate(**inputs, max_new_tokens=20)")
    return [*lines, f"print({tokenizer}.decode(tokens[0], skip_special_tokens=True))"]


def _load_peml(manifest: Manifest) -> str:
    used = _use(manifest, "adapted.model", "adapted.tokenizer")
    if manifest.heads is not None:
        task = next(iter(manifest.heads["outputs"]))
        used.append(f'print(adapted.heads({task!r}, hidden, inputs["attention_mask"]))')
    method = manifest.method and manifest.trained_method()[0]
    if method and method.merges != "always":
        task = manifest.trained_method()[1].tasks[0]
        used = [f"with adapted.lm.on({task!r}):", *(f"    {line}" for line in used)]
    code = _code("import peml", "", HERE, "adapted = peml.load(folder)", *used)
    told = "With the package `prefixnas`; `peml predict` answers new records."
    if manifest.base is None and manifest.sites:
        told += " By transformers alone it loads without its prefix, and is not what was trained."
    return f"{told}\n\n{code}"


def _load_merged(manifest: Manifest) -> str:
    auto = _AUTO[manifest.family]
    return _code(
        f"from transformers import {auto}, AutoTokenizer",
        "",
        HERE,
        f"model = {auto}.from_pretrained(folder)",
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        *_use(manifest, "model", "tokenizer"),
    )


def _load_peft(manifest: Manifest) -> str:
    return _code(
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        HERE,
        'base = AutoModelForCausalLM.from_pretrained(f"{folder}/merged")',
        "model = PeftModel.from_pretrained(base, folder).eval()",
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        *_use(manifest, "model", "tokenizer"),
    )


def _load_stock_lora(manifest: Manifest) -> str:
    auto = _AUTO_PEFT[manifest.family]
    return _code(
        f"from peft import {auto}",
        "from transformers import AutoTokenizer",
        "",
        HERE,
        f"model = {auto}.from_pretrained(folder).eval()",
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        *_use(manifest, "model", "tokenizer"),
    )
