"""GTE's BERT under the name that its makers gave it (gte-*-en-v1.5, gte-multilingual)."""

from toast.models import gte


class Model(gte.Model):
    prefix = "new"
