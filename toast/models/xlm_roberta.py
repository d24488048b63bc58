"""XLM-RoBERTa (Conneau et al. 2020): RoBERTa under another name, in the same checkpoint layout."""

from toast.models.roberta import Model

__all__ = ["Model"]
