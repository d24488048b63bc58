"""EuroBERT (Boizard et al. 2025): Llama's layers, where every token sees all others.

Owns: that, and the head. Does not know: text, pooling.
"""

from __future__ import annotations

from toast.models import llama

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Model(llama.Model):
    def is_causal(self, config: dict[str, Any]) -> bool:
        return False
