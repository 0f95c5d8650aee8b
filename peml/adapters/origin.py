"""What is known of what was trained, beside its weights: for its model card.

It comes from the run, where its folder is beside the adapter, else from the card that the adapter
or export has already.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, try_to_load_from_cache
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from peml.adapters.files import LORA, LORA_CONFIG, read_object
from peml.adapters.manifest import Manifest
from prefixnas.base.errors import UserError
from prefixnas.report.tables import architecture_table, score_table
from prefixnas.run.evaluation import TRAINED
from prefixnas.run.record import Record, read_record
from prefixnas.run.result import read_result

CARD, PICTURE = "README.md", "architecture.png"
SCORES, METHOD, ARCHITECTURE = "Scores", "Method", "Architecture"
LICENCE = ("license", "license_name", "license_link")
"""Keys by which a model card names a licence."""

_TASK_TYPES = {"generation": "text-generation"}
_SIZE = 10**6


@dataclass(frozen=True)
class Origin:
    """Where weights come from, and how they scored.

    Attributes:
        base: Hub id of the base model; None: it is on no hub, or not known.
        licence: What the base model's own card says of its licence, by the keys of `LICENCE`.
        results: Scores on the validation split, an entry a metric.
        sections: Markdown of the card's sections `SCORES`, `METHOD`, `ARCHITECTURE`, as far as they
            are known.
        picture: The drawing of the architecture.
    """

    base: str | None = None
    licence: Mapping[str, str] = field(default_factory=dict)
    results: Sequence[EvalResult] = ()
    sections: Mapping[str, str] = field(default_factory=dict)
    picture: Path | None = None

    def of(self, task: str | None) -> Origin:
        """Return the origin of a model of one task; None: of all of them."""
        if task is None:
            return self
        return replace(self, results=[r for r in self.results if r.dataset_name == task])


def origin_of(
    folder: Path, manifest: Manifest, warn: Callable[[str], object] = warnings.warn
) -> Origin:
    """Gather what is known of an adapter folder, or of an export that has a manifest.

    Args:
        folder: The folder; one that is called `adapter` and has a run around it is that run's.
        manifest: What it says of itself.
        warn: Called with a line about a file that is damaged, whose part the card then lacks.
    """
    known = _from_card(folder, warn)
    if manifest.base is not None:
        licence = licence_of(manifest.base, manifest.revision) or known.licence
        method = {METHOD: _method(folder, manifest)}
        known = Origin(
            hub_id(manifest.base),
            licence,
            known.results,
            {**known.sections, **method},
            known.picture,
        )
    run = folder.resolve().parent
    try:
        if folder.resolve().name != "adapter" or read_result(run) is None:
            return known
        record = read_record(run)
    except UserError as error:
        warn(f"the model card lacks what the run says: {error}")
        return known
    return _with_run(known, manifest, record)


def hub_id(name: str) -> str | None:
    """Return a name if it can be that of a model or data set on the hub; None: it is none."""
    try:
        validate_repo_id(name)
    except ValueError:
        return None
    return None if Path(name).exists() else name


def licence_of(base: str, revision: str | None = None) -> dict[str, str]:
    """Return what a base model's own card says of its licence, without asking a hub; else nothing.

    Args:
        base: A folder, a file, or a hub id, whose card may have been downloaded.
        revision: Which commit, on a hub.
    """
    path: Any = Path(base, CARD)
    if not path.is_file() and hub_id(base) is not None:
        path = try_to_load_from_cache(base, CARD, revision=revision)
    return licence_in(path) if isinstance(path, str | Path) and Path(path).is_file() else {}


def licence_in(card: str | Path) -> dict[str, str]:
    """Return what a model card says of a licence."""
    try:
        data = _read_card(Path(card)).data
    except ValueError:
        return {}
    return {key: data[key] for key in LICENCE if isinstance(data.get(key), str)}


def _read_card(path: Path) -> ModelCard:
    """Read a model card.

    Raises:
        ValueError: It is no text, too long, or its metadata are none.
    """
    text = path.read_text(encoding="utf-8")
    if len(text) > _SIZE:
        raise ValueError(f"more than {_SIZE:,} characters")
    try:
        return ModelCard(text)
    except Exception as error:  # YAML, and whatever metadata do to the classes that hold them
        raise ValueError(str(error)) from error


def _from_card(folder: Path, warn: Callable[[str], object]) -> Origin:
    """Read back what the card of an adapter or export says."""
    path, picture = folder / CARD, folder / PICTURE
    if not path.is_file():
        return Origin()
    try:
        card = _read_card(path)
    except (OSError, ValueError) as error:
        warn(f"{path}: not read: {error}")
        return Origin()
    base = card.data.get("base_model")
    licence = {key: card.data[key] for key in LICENCE if isinstance(card.data.get(key), str)}
    return Origin(
        base if isinstance(base, str) else None,
        licence,
        tuple(card.data.get("eval_results", ())),
        _sections(card.text),
        picture if picture.is_file() else None,
    )


def _sections(text: str) -> dict[str, str]:
    parts = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)
    found = dict(zip(parts[1::2], parts[2::2], strict=True))
    return {name: found[name].strip() for name in (SCORES, METHOD, ARCHITECTURE) if name in found}


def _method(folder: Path, manifest: Manifest) -> str:
    """Say in Markdown what was trained on the base model."""
    lines = []
    if manifest.lora is not None:
        config = read_object(folder / LORA / LORA_CONFIG, _SIZE)
        rank = config.get("init_r") or config.get("r")
        lines.append(f"LoRA (`{manifest.lora}`) of rank {rank}")
    elif manifest.method is not None:
        lines.append(f"{manifest.trained_method()[0].title} (`{manifest.method['name']}`)")
    if manifest.sites:
        lines.append(
            f"a prefix of {manifest.prefix_length} virtual tokens, keys and values that "
            f"{len(manifest.sites)} attention layers read (`{manifest.attention}`)"
        )
    if manifest.heads is not None:
        lines.append("a head for each task")
    return "Trained on a frozen base model:\n\n" + "".join(f"- {line}\n" for line in lines)


def _with_run(known: Origin, manifest: Manifest, record: Record) -> Origin:
    """Add what a finished run says."""
    columns = record.columns()
    sections = {**known.sections, SCORES: _SCORED + score_table(columns).markdown()}
    if manifest.sites and record.architecture is not None:
        text = _SEARCHED.format(record.start("space"))
        chosen = architecture_table(record) if record.architecture else None
        sections[ARCHITECTURE] = text + (chosen.markdown() if chosen else "")
    trained = (columns.get(TRAINED) or {}).get("scores", {})
    kinds = {str(task.get("name")): str(task.get("kind")) for task in manifest.tasks}
    results = [
        EvalResult(
            task_type=_TASK_TYPES.get(kinds.get(task, ""), "text-classification"),
            dataset_type=task,
            dataset_name=task,
            dataset_split="validation",
            metric_type=metric,
            metric_value=value,
        )
        for task, values in trained.items()
        for metric, value in values.items()
        if value is not None
    ]
    drawn = record.folder / "plots" / PICTURE
    return Origin(
        known.base, known.licence, results, sections, drawn if drawn.is_file() else known.picture
    )


_SCORED = f"""\
On the validation split, higher is better; a task's score is the mean of its metrics. The column
`{TRAINED}` is this model, the others were trained or scored beside it.

"""

_SEARCHED = """\
Of the small network that generated the prefix, in the search space `{}`. The network is not in this
folder: a prefix does not depend on the input, so its values are all that is needed.

"""
