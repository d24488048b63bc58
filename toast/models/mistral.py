"""Mistral (Jiang et al. 2023) as an encoder: Llama with a sliding window in every layer (e5-mistral).

Owns: the windows. Does not know: text, pooling.
"""

from __future__ import annotations

from toast.models import llama

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Model(llama.Model):
    def read_windows(self, config: dict[str, Any]) -> list[int | None]:
        return [config.get("sliding_window")] * config["num_hidden_layers"]
