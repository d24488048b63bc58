"""Qwen2 (Yang et al. 2024) as an encoder: Qwen3's layers without norms of queries and keys (gte-Qwen2).

Owns: what differs. Does not know: text, pooling.
"""

from __future__ import annotations

from toast.models import qwen3

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Layer(qwen3.Layer):
    qk_norm = False

    def biases(self, config: dict[str, Any]) -> tuple[bool, bool]:
        return True, False


class Model(qwen3.Model):
    Layer = Layer
