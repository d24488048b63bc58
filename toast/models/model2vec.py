"""model2vec's static embeddings: the token for what is not known counts for nothing.

Owns: that. Does not know: text, pooling.
"""

from toast.models import static


class Model(static.Model):
    skips_unknown = True
