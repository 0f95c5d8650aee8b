"""Tensor files are whole or not there, and a full disk is one line with its cause."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from prefixnas.base.errors import UserError
from prefixnas.base.tensors import read_tensors, write_tensors, written


def test_tensors_come_back(tmp_path: Path) -> None:
    whole = torch.arange(6.0).reshape(2, 3)
    write_tensors(tmp_path / "x", {"a": whole.T, "b": whole.requires_grad_()}, {"made": "here"})
    found = read_tensors(tmp_path / "x")
    assert torch.equal(found["a"], whole.T) and torch.equal(found["b"], whole)


def test_what_is_no_tensor_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="x is missing"):
        read_tensors(tmp_path / "x")
    (tmp_path / "x").write_bytes(b"nothing")
    with pytest.raises(UserError, match="x: damaged"):
        read_tensors(tmp_path / "x")


def test_a_full_disk_has_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_tensors(tmp_path / "x", {"a": torch.ones(2)})
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="x: cannot be written: No space left") as caught:
        write_tensors(tmp_path / "x", {"a": torch.zeros(2)})
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert read_tensors(tmp_path / "x")["a"].sum() == 2


def test_the_number_that_safetensors_hides_is_found(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match="model: cannot be written") as caught,
        written(Path("model")),
    ):
        save_file({"a": torch.ones(100)}, tmp_path / "missing" / "x")
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOENT


def test_the_number_that_tokenizers_hides_is_found(tmp_path: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import BPE

    with (
        pytest.raises(UserError, match="model: cannot be written: No such file") as caught,
        written(Path("model")),
    ):
        Tokenizer(BPE()).save(str(tmp_path / "missing" / "x"))
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOENT


def test_what_has_nothing_to_do_with_writing_passes() -> None:
    with pytest.raises(UserError, match=r"^mine \(os error 2\)$"), written(Path("model")):
        raise UserError("mine (os error 2)")
    with pytest.raises(ZeroDivisionError), written(Path("model")):
        raise ZeroDivisionError
