"""Errors as values: they go between processes, and say what is missing."""

from __future__ import annotations

import importlib
import importlib.util
import pickle

import pytest

from electra.errors import ElectraError


def test_an_error_goes_from_process_to_process() -> None:
    error = pickle.loads(pickle.dumps(ElectraError("E-D100", "a.txt", "is bad", "mend it")))
    assert str(error) == "E-D100 a.txt: is bad; mend it"
    assert (error.code, error.where, error.cause, error.fix) == ("E-D100", "a.txt", "is bad", "mend it")


def test_pipelines_without_datatrove_say_where_it_is() -> None:
    if importlib.util.find_spec("datatrove") is not None:
        pytest.skip("datatrove is installed")
    with pytest.raises(ElectraError, match=r"E-R860 .* make datatrove-env"):
        importlib.import_module("electra.text.datatrove")
