"""Put an adapter or an export on a hub: its own files alone, in one commit."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelCard,
    get_token,
    hf_hub_download,
)
from huggingface_hub.errors import (  # type: ignore[attr-defined]
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    RepositoryNotFoundError,
)

from peml.adapters.card import ADAPTER, PEML, model_card, on_hub, with_licence
from peml.adapters.files import (
    HEADS,
    LORA_CONFIG,
    LORA_TENSORS,
    MANIFEST,
    METHOD,
    PREFIX,
    adapter_folder,
    read_object,
)
from peml.adapters.manifest import Manifest
from peml.adapters.origin import ARCHITECTURE, CARD, LICENCE, PICTURE, licence_in, origin_of
from peml.adapters.tensors import check_hashes
from prefixnas.base.errors import UserError, first_line, one_line
from prefixnas.base.files import read_text

OWN = (
    *("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json"),
    *("config.json", "generation_config.json", MANIFEST, PREFIX, HEADS, METHOD),
    *(LORA_CONFIG, LORA_TENSORS, CARD, PICTURE),
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "chat_template.jinja"),
    *("spiece.model", "sentencepiece.bpe.model", "additional_chat_templates/*.jinja"),
)
"""What adapters and exports hold, tokenizers of all kinds with them; nothing else is pushed."""

_PARTS = ("", "lora/", "merged/")
_MERGED = "merged"
_SIZE = 10**6
TIMEOUT = 20.0
"""Seconds within which a hub has to answer the first time."""


@dataclass(frozen=True)
class Pushed:
    """What became of a push.

    Attributes:
        url: Where the commit is.
        files: What was pushed, by the paths in the repository.
        left_out: What else lies in the folder.
    """

    url: str
    files: tuple[str, ...]
    left_out: tuple[str, ...]


def push(
    folder: str | Path,
    repo: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    endpoint: str | None = None,
    warn: Callable[[str], object] = lambda message: None,
) -> Pushed:
    """Push an adapter, or what `export` wrote, to a repository of a hub, which is made if need be.

    The model card is changed on the way: it is named after the repository and says how to load it
    from there. A PEFT export's merged model goes into a branch of its own, too, which its
    configuration names as the base model: so the repository's name alone loads both.

    Args:
        folder: A run directory, an adapter folder, or an export.
        repo: OWNER/NAME.
        private: Whether a repository that is made now is private; None: as the owner's are.
        revision: A branch, made if need be; None: the main one.
        endpoint: The hub; None: that of ``HF_ENDPOINT``.
        warn: Called with a line about what will not load elsewhere.

    Raises:
        UserError: Nothing to push, a damaged adapter, no token, a hub that does not answer, or one
            that refuses. Nothing is changed in the folder, and nothing in a branch but by a whole
            commit.
    """
    run, folder = Path(folder), adapter_folder(folder)
    found = own_files(folder)
    _check(folder)
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise UserError(f"a repository is OWNER/NAME, not {repo!r}")
    if (token := get_token()) is None:
        raise UserError("no token of a hub: `hf auth login` keeps one, or set HF_TOKEN")
    api = HfApi(endpoint=endpoint, token=token)
    with _answered(api.endpoint, repo):
        _make(api, repo, private, revision)
        files = _contents(folder, run, found, repo, api)
        if any(name.startswith(f"{_MERGED}/") for name in found):
            files[LORA_CONFIG] = _with_base(api, repo, revision, folder, found)
        elif not _loads_elsewhere(folder, found):
            warn("it names its base model by a path of this machine; others have to say --model")
        commit = api.create_commit(
            repo,
            [CommitOperationAdd(name, content) for name, content in files.items()],
            commit_message="Upload model",
            revision=revision,
        )
    left = sorted(_all_files(folder) - set(found))
    return Pushed(str(commit.commit_url), tuple(files), tuple(left))


def own_files(folder: Path) -> list[str]:
    """Return the files of an adapter or export, by their paths in it, without strangers.

    Raises:
        UserError: The folder is neither.
    """
    known = (MANIFEST, LORA_CONFIG, "config.json")
    if not any((folder / name).is_file() for name in known):
        raise UserError(f"{folder}: is no run with an adapter, no adapter folder, and no export")
    own = [part + name for part in _PARTS for name in OWN]
    # `*` of fnmatch reaches into folders: as many parts are wanted as the pattern has.
    return sorted(
        name
        for name in _all_files(folder)
        if any(fnmatch(name, each) and name.count("/") == each.count("/") for each in own)
    )


def _all_files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def _check(folder: Path) -> None:
    if (folder / MANIFEST).is_file():
        check_hashes(folder, Manifest.read(folder))


def _make(api: HfApi, repo: str, private: bool | None, revision: str | None) -> None:
    """See that there are a repository and a branch; the first question has to be answered soon."""
    try:
        api.model_info(repo, timeout=TIMEOUT)
    except RepositoryNotFoundError:
        api.create_repo(repo, private=private, exist_ok=True)
    if revision is not None:
        api.create_branch(repo, branch=revision, exist_ok=True)


Content = bytes | str
"""What a file holds, or the path of it."""


def _contents(
    folder: Path, run: Path, found: list[str], repo: str, api: HfApi
) -> dict[str, Content]:
    """Return what is pushed, by the paths in the repository."""
    files: dict[str, Content] = {name: str(folder / name) for name in found}
    picture = run / "plots" / PICTURE
    if folder != run and picture.is_file() and PICTURE not in files:
        files[PICTURE] = str(picture)
    if (written := _card(folder)) is not None:
        card = on_hub(written, repo)
        if PICTURE in files and PICTURE not in card.text:
            title = f"## {ARCHITECTURE}\n"
            card.text = card.text.replace(title, f"{title}\n![The architecture]({PICTURE})\n", 1)
        files[CARD] = str(_licensed(card, api)).encode()
    return files


def _card(folder: Path) -> ModelCard | None:
    """Return the model card of a folder; an adapter of an earlier version has none yet."""
    if (folder / CARD).is_file():
        return ModelCard(read_text(folder / CARD, _SIZE))
    if not (folder / MANIFEST).is_file():
        return None
    manifest = Manifest.read(folder)
    kind = PEML if manifest.base is None else ADAPTER
    return model_card(kind, manifest, origin_of(folder, manifest))


def _licensed(card: ModelCard, api: HfApi) -> ModelCard:
    """Look up the licence of a base model that is on the same hub, where it is not known yet."""
    base = card.data.get("base_model")
    if not isinstance(base, str) or any(card.data.get(key) for key in LICENCE):
        return card
    try:
        path = hf_hub_download(base, CARD, endpoint=api.endpoint, token=api.token)
    except (HfHubHTTPError, EntryNotFoundError, HFValidationError):
        return card
    return with_licence(card, licence_in(path))


def _with_base(
    api: HfApi, repo: str, revision: str | None, folder: Path, found: list[str]
) -> bytes:
    """Put the merged model into a branch of its own; return PEFT's configuration that names it."""
    branch = _MERGED if revision is None else f"{revision}-{_MERGED}"
    api.create_branch(repo, branch=branch, exist_ok=True)
    names = {name.removeprefix(f"{_MERGED}/"): name for name in found if name.startswith(_MERGED)}
    others = set(api.list_repo_files(repo, revision=branch)) - set(names) - {".gitattributes"}
    commit = api.create_commit(
        repo,
        [
            *(CommitOperationAdd(short, str(folder / name)) for short, name in names.items()),
            *(CommitOperationDelete(name) for name in sorted(others)),
        ],
        commit_message="Upload the merged model, which the adapter in the main branch is for",
        revision=branch,
    )
    config = read_object(folder / LORA_CONFIG, _SIZE)
    config.update(base_model_name_or_path=repo, revision=commit.oid)
    return (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()


def _loads_elsewhere(folder: Path, found: list[str]) -> bool:
    """Tell whether a folder holds its base model, or names one that is not a path."""
    if "config.json" in found:
        return True
    if MANIFEST in found:
        base = Manifest.read(folder).base
    else:
        base = str(read_object(folder / LORA_CONFIG, _SIZE).get("base_model_name_or_path"))
    return base is None or not os.path.isabs(base)  # noqa: PTH117


@contextmanager
def _answered(endpoint: str, repo: str) -> Iterator[None]:
    """Make one line of what a hub, or the way to it, does not do.

    Raises:
        UserError: Says what was refused, or that nothing answered.
    """
    try:
        yield
    except HfHubHTTPError as error:
        said = error.server_message or first_line(error)
        code = error.response.status_code
        raise UserError(f"{endpoint}: refuses {repo}: {code}: {one_line(said)}") from error
    except HFValidationError as error:
        raise UserError(f"a repository is OWNER/NAME: {one_line(str(error))}") from error
    except (HTTPError, ConnectionError) as error:
        raise UserError(f"{endpoint}: does not answer: {one_line(str(error))}") from error
    except (ValueError, RuntimeError) as error:  # a card it does not take, a file that broke off
        cause = error.__cause__ or error
        raise UserError(f"{endpoint}: refuses {repo}: {one_line(str(cause))}") from error
