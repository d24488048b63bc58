"""Vocabularies in a form that is mapped, not parsed: `_ext` (C++, src/) reads and makes it, `compile.py` understands a
tokenizer.json. Without a C++ compiler there is no `_ext`, and the tokenizers library reads every vocabulary.
"""
