"""Vocabularies in every form that models come with, against the ids of the libraries that they are made for."""

import json
import os
import shutil

import pytest
from command import command

from toast.errors import BadModel
from toast.generation.tokenizer import Tokenizer
from toast.store import vocabularies
from toast.store.folder import write_texts

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles", "vocabularies")
NAMES = sorted(os.listdir(FOLDER))


def oracle(name):
    with open(os.path.join(FOLDER, name, "oracle.json"), encoding="utf-8") as file:
        return json.load(file)


def tokenizer(name, tmp_path):
    """The tokenizer that is made of a fixture."""
    folder = os.path.join(FOLDER, name)
    document = vocabularies.tokenizer_json(folder, vocabularies.source(folder))
    write_texts(str(tmp_path), {"tokenizer.json": document})
    return Tokenizer(str(tmp_path))


@pytest.mark.parametrize("name", NAMES)
def test_ids(name, tmp_path):
    made, facts = tokenizer(name, tmp_path), oracle(name)
    for case in facts["cases"]:
        assert made.encode(case["text"], special=facts.get("special", False)) == case["ids"], case["text"]
