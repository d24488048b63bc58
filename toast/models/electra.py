"""ELECTRA (Clark et al. 2020): BERT with narrow embeddings and a GELU head.

Owns: the differences from bert.py. Does not know: text, pooling.
"""

from toast.models import bert, layers, roberta


class Model(bert.Model):
    prefix, classifier = "electra", "classifier.out_proj"
    read_head = roberta.Model.read_head

    def read_encoder(self, config, w):
        self.activation = layers.activation("gelu")
        D, E = config["hidden_size"], config.get("embedding_size", config["hidden_size"])
        self.project = w.linear("embeddings_project", D, E) if E != D else lambda x: x

    def embed(self, ids, types):
        return self.project(super().embed(ids, types))
